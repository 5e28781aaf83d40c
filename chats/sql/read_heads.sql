-- read_heads.sql: how far the chats of some users have come, where something happened lately, and
-- whether that was their deletion.
--
-- In:     user_ids text[]; within_s int, on the database's clock
-- Out:    user_id, chat_id, last_seq, is_deleted; one row for each user and chat
-- Locks:  none
-- Twin:   tests/chats/test_pull.py
SELECT m.user_id, c.id, c.last_seq, c.deleted_at IS NOT NULL
FROM chat_member m
JOIN chat c ON c.id = m.chat_id
WHERE m.user_id = ANY (%(user_ids)s)
  AND c.updated_at > clock_timestamp() - make_interval(secs => %(within_s)s)
