-- count_additions.sql: count people who are put into chats, each in the window that is running.
--
-- In:     kinds, user_ids text[]; begins timestamptz[]; people bigint[]: one entry for each count,
--         none twice
-- Out:    kind, user_id, and how many were counted in the window before this
-- Rule:   a window only moves forward: an instance whose clock is behind counts in the newest one,
--         and does not begin it anew
-- Locks:  rows of chat_addition in the order of kind and user, until the transaction ends. What is
--         refused is rolled back and was never counted.
-- Races:  whoever counts the same at the same time waits for the lock, and sees this count
-- Twin:   tests/chats/test_additions.py
INSERT INTO chat_addition AS a (kind, user_id, begins_at, people)
SELECT n.kind, n.user_id, n.begins_at, n.people
FROM unnest(
    %(kinds)s::text[], %(user_ids)s::text[], %(begins)s::timestamptz[], %(people)s::bigint[]
) AS n (kind, user_id, begins_at, people)
ORDER BY n.kind, n.user_id
ON CONFLICT (user_id, kind) DO UPDATE
SET people = excluded.people
        + CASE WHEN a.begins_at < excluded.begins_at THEN 0 ELSE a.people END,
    begins_at = greatest(a.begins_at, excluded.begins_at)
RETURNING a.kind, a.user_id, a.people
