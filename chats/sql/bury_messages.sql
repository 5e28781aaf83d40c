-- bury_messages.sql: turn messages of a chat into tombstones.
--
-- In:     chat_id text; author_id text, null for everybody's; message_id text, null for all of
--         them; page int (the most rows at once); at timestamptz
-- Out:    the new number of each tombstone
-- Rule:   a tombstone has no content, nor the hashes of former ones, and takes the chat's next
--         number, in the old order; what is one already is left alone
-- Locks:  the caller holds the chat row since an earlier statement of this transaction
-- Twin:   tests/chats/test_deletion.py
WITH doomed AS (
    SELECT m.id, row_number() OVER (ORDER BY m.seq) AS place
    FROM chat_message m
    WHERE m.chat_id = %(chat_id)s AND m.deleted_at IS NULL
      AND (%(author_id)s::text IS NULL OR m.author_id = %(author_id)s)
      AND (%(message_id)s::text IS NULL OR m.id = %(message_id)s)
    ORDER BY m.seq LIMIT %(page)s
), numbered AS (
    UPDATE chat c
    SET last_seq = c.last_seq + (SELECT count(*) FROM doomed),
        updated_at = greatest(c.updated_at, %(at)s)
    WHERE c.id = %(chat_id)s AND EXISTS (SELECT 1 FROM doomed)
    RETURNING c.last_seq - (SELECT count(*) FROM doomed) AS head
)
UPDATE chat_message m
SET seq = n.head + d.place, content = '', superseded = NULL, deleted_at = %(at)s,
    updated_at = %(at)s
FROM doomed d, numbered n
WHERE m.id = d.id
RETURNING m.seq
