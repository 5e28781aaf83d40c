-- send_messages.sql: append and edit messages for a batch of calls, in one round trip.
--
-- In:     p_calls json array, one object a call, in order of arrival: chat_id, user_id text,
--         messages: array of id, role, content text; no id twice in one call; known: array of
--         [from, to], the numbers of the chat that the calling socket has been sent. Without it, as
--         from an instance of the release before, the socket counts as knowing everything
--         p_chats text[], every chat of the batch once
-- Out:    one row a call, in any order: ord (from 1), outcome, at_id, seq, from_seq, to_seq, members
--         sent          members: the user ids at this commit; seq: the highest number among the
--                       call's messages; from_seq..to_seq: what was handed out, empty for a resend
--         late          the same, but at least one content was an old one and was left alone
--         no_chat | no_member
--         other_chat    at_id belongs to a message of another chat (null: it was taken meanwhile)
--         other_author  at_id belongs to somebody else's message
-- Rule:   new ids in order, then changed contents in order, each takes the chat's next number. The
--         same content again and a deleted message are left alone, and so is a late retry: a
--         content that was edited away, from a socket that has not been sent the number of what
--         stands now. From one that has, it is an edit back. The newest 32 contents that were
--         edited away are known, by the first half of their SHA-256; one that is older is an edit.
--         A refused call does nothing. Whoever sends something new is not silent any more.
-- Locks:  chat rows in id order, FOR NO KEY UPDATE. Whoever numbers or changes members holds this
--         lock, so numbers are dense, become visible in order, and members are those at the commit.
-- Plans:  every look-up is a sub-select for one row: a join that was planned while the table was
--         small goes on reading all of it
-- Races:  an id that another chat takes at the same time: the insert waits for it, then the
--         call's rows are taken back
-- Twin:   tests/chats/test_send.py, tests/chats/test_machine.py
CREATE OR REPLACE FUNCTION chats_send_messages(p_calls json, p_chats text[])
RETURNS TABLE (
    ord bigint, outcome text, at_id text, seq bigint, from_seq bigint, to_seq bigint,
    members text[]
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    c record;
    e record;
    v_head bigint;
    v_added bigint;
    v_wanted bigint;
    v_elsewhere text;
    v_foreign text;
    v_now timestamptz;
    v_hash bytea;
    v_past bytea[];
BEGIN
    PERFORM 1 FROM chat r WHERE r.id = ANY (p_chats) AND r.deleted_at IS NULL
    ORDER BY r.id FOR NO KEY UPDATE;

    FOR c IN
        SELECT r.* FROM ROWS FROM (json_to_recordset(p_calls) AS (
            chat_id text, user_id text, messages json, known json
        )) WITH ORDINALITY AS r (chat_id, user_id, messages, known, position)
    LOOP
        ord := c.position;
        at_id := NULL; seq := NULL; from_seq := NULL; to_seq := NULL; members := NULL;
        SELECT r.last_seq INTO v_head FROM chat r
        WHERE r.id = c.chat_id AND r.deleted_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            outcome := 'no_chat'; RETURN NEXT; CONTINUE;
        END IF;
        members := ARRAY(
            SELECT m.user_id FROM chat_member m
            WHERE m.chat_id = c.chat_id AND m.user_id IS NOT NULL);
        IF c.user_id <> ALL (members) THEN
            outcome := 'no_member'; RETURN NEXT; CONTINUE;
        END IF;

        -- One statement, so that no id can come between looking for others' and counting the new.
        SELECT count(*) FILTER (WHERE m.id IS NULL),
               min(m.id) FILTER (WHERE m.chat_id <> c.chat_id),
               min(m.id) FILTER (WHERE m.author_id <> c.user_id)
        INTO v_wanted, v_elsewhere, v_foreign
        FROM json_to_recordset(c.messages) AS n (id text)
        LEFT JOIN LATERAL (
            SELECT x.id, x.chat_id, x.author_id FROM chat_message x WHERE x.id = n.id LIMIT 1
        ) AS m ON true;
        IF v_elsewhere IS NOT NULL OR v_foreign IS NOT NULL THEN
            outcome := CASE WHEN v_elsewhere IS NULL THEN 'other_author' ELSE 'other_chat' END;
            at_id := coalesce(v_elsewhere, v_foreign);
            RETURN NEXT; CONTINUE;
        END IF;

        v_now := clock_timestamp();
        INSERT INTO chat_message (
            id, chat_id, seq, sender_id, author_id, role, content, created_at, updated_at
        )
        SELECT n.id, c.chat_id, v_head + row_number() OVER (ORDER BY n.position),
               CASE WHEN n.role = 'user' THEN c.user_id END, c.user_id, n.role, n.content,
               v_now, v_now
        FROM ROWS FROM (json_to_recordset(c.messages) AS (id text, role text, content text))
        WITH ORDINALITY AS n (id, role, content, position)
        WHERE (SELECT x.id FROM chat_message x WHERE x.id = n.id) IS NULL
        ON CONFLICT (id) DO NOTHING;
        GET DIAGNOSTICS v_added = ROW_COUNT;
        IF v_added < v_wanted THEN
            DELETE FROM chat_message m WHERE m.chat_id = c.chat_id AND m.seq > v_head;
            outcome := 'other_chat'; RETURN NEXT; CONTINUE;
        END IF;

        outcome := 'sent';
        to_seq := v_head + v_added;
        FOR e IN
            SELECT n.id, n.content, m.seq, m.content AS stands, m.superseded
            FROM ROWS FROM (json_to_recordset(c.messages) AS (id text, content text))
            WITH ORDINALITY AS n (id, content, position)
            CROSS JOIN LATERAL (
                SELECT x.seq, x.content, x.superseded, x.deleted_at
                FROM chat_message x WHERE x.id = n.id LIMIT 1
            ) AS m
            WHERE m.deleted_at IS NULL AND m.content <> n.content
            ORDER BY n.position
        LOOP
            v_hash := substring(sha256(convert_to(e.content, 'UTF8')) FOR 16);
            IF v_hash = ANY (coalesce(e.superseded, '{}')) AND NOT coalesce((
                SELECT bool_or(e.seq BETWEEN (k.range ->> 0)::bigint AND (k.range ->> 1)::bigint)
                FROM json_array_elements(c.known) AS k (range)
            ), c.known IS NULL) THEN
                outcome := 'late'; CONTINUE;
            END IF;
            to_seq := to_seq + 1;
            v_past := array_remove(e.superseded, v_hash)
                   || substring(sha256(convert_to(e.stands, 'UTF8')) FOR 16);
            UPDATE chat_message m
            SET seq = to_seq, content = e.content, updated_at = v_now,
                superseded = v_past[cardinality(v_past) - 31:]
            WHERE m.id = e.id;
        END LOOP;

        from_seq := v_head + 1;
        IF to_seq > v_head THEN
            UPDATE chat r SET last_seq = to_seq, updated_at = greatest(r.updated_at, v_now)
            WHERE r.id = c.chat_id;
            UPDATE chat_member m SET is_silent = false
            WHERE m.chat_id = c.chat_id AND m.user_id = c.user_id AND m.is_silent;
        END IF;
        SELECT coalesce(max(m.seq), to_seq) INTO seq
        FROM json_to_recordset(c.messages) AS n (id text)
        CROSS JOIN LATERAL (SELECT x.seq FROM chat_message x WHERE x.id = n.id LIMIT 1) AS m;
        RETURN NEXT;
    END LOOP;
END $$;
