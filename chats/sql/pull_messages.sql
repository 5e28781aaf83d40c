-- pull_messages.sql: what a member has not seen of a chat, and how far the chat has come.
--
-- In:     chat_id, user_id text; after_seq bigint; page int (rows wanted); max_bytes int (content
--         wanted)
-- Out:    no row: there is no such chat. Else is_member, last_seq, and of each row after the
--         cursor, ascending: found (rows before content was counted), id, sender_id, role, content,
--         seq, created_at and updated_at in milliseconds, is_deleted; one row of nulls if there is
--         none or the caller is no member
-- Rule:   one statement, so rows, head and membership are of one snapshot: a head that is read a
--         moment later is ahead of the page, and whoever keeps it as a cursor loses messages.
--         Rows end where their content gets too long together, but the first always comes.
-- Locks:  none
-- Twin:   tests/chats/test_pull.py, tests/chats/test_machine.py
SELECT r.is_member, r.last_seq, p.*
FROM (
    SELECT c.last_seq, EXISTS (
        SELECT 1 FROM chat_member m WHERE m.chat_id = c.id AND m.user_id = %(user_id)s
    ) AS is_member
    FROM chat c WHERE c.id = %(chat_id)s AND c.deleted_at IS NULL
) AS r
LEFT JOIN LATERAL (
    SELECT m.found, m.id, m.sender_id, m.role, m.content, m.seq,
           floor(extract(epoch FROM m.created_at) * 1000)::bigint,
           floor(extract(epoch FROM m.updated_at) * 1000)::bigint,
           m.deleted_at IS NOT NULL
    FROM (
        SELECT l.*, count(*) OVER () AS found, row_number() OVER (ORDER BY l.seq) AS place,
               sum(octet_length(l.content)) OVER (ORDER BY l.seq) AS bytes
        FROM (
            SELECT * FROM chat_message m
            WHERE r.is_member AND m.chat_id = %(chat_id)s AND m.seq > %(after_seq)s
            ORDER BY m.seq LIMIT %(page)s
        ) AS l
    ) AS m
    WHERE m.bytes <= %(max_bytes)s OR m.place = 1
) AS p ON true
ORDER BY p.seq
