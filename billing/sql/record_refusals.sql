-- record_refusals.sql: count refusals, keep the requests that were refused, forget old ones.
--
-- In:     rows json array, one object a request:
--         id uuid, user_id, api_key_id, model, kind text, status int, code, message text,
--         at timestamptz
--         counts json array, one object a caller, hour, model and code:
--         user_id text, hour timestamptz, api_key_id, model, code text, status int, count bigint,
--         first_at, last_at timestamptz
--         old uuid: what ids of the last seven days are not below; page int: the most that goes
--         oldest timestamptz: the first hour that is still kept
-- Out:    one row that says nothing
-- Rule:   a row again is no other row; a count again counts again. Ids begin with their time, so
--         the primary key leads to what is old. What goes is at most twice what a busy server
--         brings, so that it keeps up and no statement is long.
-- Locks:  refusal_hour rows in the order of their key: instances wait for each other, briefly.
--         Old rows that another instance is deleting are left to it.
-- Commit: need not wait for the disk: a crash loses the refusals of its last moment.
-- Twin:   tests/billing/test_record_refusals_sql.py
WITH kept AS (
    INSERT INTO refused_request
        (id, user_id, api_key_id, model, kind, status, code, message, at)
    SELECT r.id, r.user_id, r.api_key_id, r.model, r.kind, r.status, r.code, r.message, r.at
    FROM json_to_recordset(%(rows)s::json) AS r (
        id uuid, user_id text, api_key_id text, model text, kind text, status int, code text,
        message text, at timestamptz
    )
    ON CONFLICT (id) DO NOTHING
), counted AS (
    INSERT INTO refusal_hour AS h
        (user_id, hour, api_key_id, model, code, status, count, first_at, last_at)
    SELECT c.user_id, c.hour, c.api_key_id, c.model, c.code, c.status, c.count, c.first_at,
           c.last_at
    FROM json_to_recordset(%(counts)s::json) AS c (
        user_id text, hour timestamptz, api_key_id text, model text, code text, status int,
        count bigint, first_at timestamptz, last_at timestamptz
    )
    ORDER BY c.user_id, c.hour, c.api_key_id, c.model, c.code
    ON CONFLICT (user_id, hour, api_key_id, model, code) DO UPDATE
    SET count = h.count + excluded.count,
        status = excluded.status,
        first_at = least(h.first_at, excluded.first_at),
        last_at = greatest(h.last_at, excluded.last_at)
), forgotten AS (
    DELETE FROM refused_request WHERE id = ANY (ARRAY(
        SELECT id FROM refused_request WHERE id < %(old)s
        ORDER BY id LIMIT %(page)s FOR UPDATE SKIP LOCKED
    ))
), forgotten_counts AS (
    DELETE FROM refusal_hour WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM refusal_hour WHERE hour < %(oldest)s
        ORDER BY hour LIMIT %(page)s FOR UPDATE SKIP LOCKED
    ))
)
SELECT set_config('synchronous_commit', 'off', true)
