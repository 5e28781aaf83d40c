-- read_range.sql: the rows that now have a number in a range, to be delivered to members.
--
-- In:     chat_id text; from_seq, to_seq bigint; page int (rows wanted); max_bytes int (content
--         wanted)
-- Out:    found (rows before content was counted), id, sender_id, role, content, seq, created_at
--         and updated_at in milliseconds, is_deleted; ascending by seq
-- Rule:   what was numbered again since is not in the range; its own event brings it. Rows end
--         where their content gets too long together, but the first always comes.
-- Locks:  none
-- Twin:   tests/chats/test_pull.py
SELECT m.found, m.id, m.sender_id, m.role, m.content, m.seq,
       floor(extract(epoch FROM m.created_at) * 1000)::bigint,
       floor(extract(epoch FROM m.updated_at) * 1000)::bigint,
       m.deleted_at IS NOT NULL
FROM (
    SELECT l.*, count(*) OVER () AS found, row_number() OVER (ORDER BY l.seq) AS place,
           sum(octet_length(l.content)) OVER (ORDER BY l.seq) AS bytes
    FROM (
        SELECT * FROM chat_message m
        WHERE m.chat_id = %(chat_id)s AND m.seq BETWEEN %(from_seq)s AND %(to_seq)s
        ORDER BY m.seq LIMIT %(page)s
    ) AS l
) AS m
WHERE m.bytes <= %(max_bytes)s OR m.place = 1
ORDER BY m.seq
