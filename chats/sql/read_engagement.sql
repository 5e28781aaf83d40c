-- read_engagement.sql: who likes and keeps some characters: the latest, and always the caller.
--
-- In:     character_ids text[]; caller text; max_shown int, for each character and kind
-- Out:    kind 'like' or 'bookmark', character_id, user_id, created_at; latest first
-- Locks:  none
-- Twin:   tests/chats/test_characters_engagement.py
SELECT e.kind, e.character_id, e.user_id, e.created_at
FROM unnest(%(character_ids)s::text[]) AS c (id)
CROSS JOIN LATERAL (
    (SELECT 'like' AS kind, l.character_id, l.user_id, l.created_at
     FROM character_like l
     WHERE l.character_id = c.id
     ORDER BY l.created_at DESC, l.user_id
     LIMIT %(max_shown)s)
    UNION
    (SELECT 'like', l.character_id, l.user_id, l.created_at
     FROM character_like l
     WHERE l.character_id = c.id AND l.user_id = %(caller)s)
    UNION
    (SELECT 'bookmark', b.character_id, b.user_id, b.created_at
     FROM character_bookmark b
     WHERE b.character_id = c.id
     ORDER BY b.created_at DESC, b.user_id
     LIMIT %(max_shown)s)
    UNION
    (SELECT 'bookmark', b.character_id, b.user_id, b.created_at
     FROM character_bookmark b
     WHERE b.character_id = c.id AND b.user_id = %(caller)s)
) e
ORDER BY e.created_at DESC, e.user_id
