-- read_heads.sql: how far the chats of some users have come, where something happened lately.
--
-- In:     user_ids text[]; within_s int, on the database's clock
-- Out:    user_id, chat_id, last_seq; one row for each user and live chat
-- Locks:  none
-- Twin:   tests/chats/test_pull.py
SELECT m.user_id, c.id, c.last_seq
FROM chat_member m
JOIN chat c ON c.id = m.chat_id
WHERE m.user_id = ANY (%(user_ids)s)
  AND c.deleted_at IS NULL
  AND c.updated_at > clock_timestamp() - make_interval(secs => %(within_s)s)
