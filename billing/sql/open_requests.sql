-- open_requests.sql: admit a batch of requests, each with a hold, in one round trip.
--
-- In:     p_rows json array, one object a request, in order of arrival:
--         id uuid, user_id, api_key_id, kind, client_key, input_hash (hex), model text,
--         stream bool, price_version, prompt_estimate int, floor and wanted bigint (whole Flux),
--         limit_day, limit_month, limit_total bigint (the key's spending limits, null: none),
--         instance_id text, deadline_s int
--         p_users text[], every user of the batch once
-- Out:    one row a request, in any order: ord (from 1), outcome, hold, available, existing id
--         opened        hold is reserved: wanted, or what is free if that covers floor
--         replayed      this id is open already, with this hold (the batch is being run again)
--         duplicate     the client's key is taken by `existing`
--         insufficient  less than floor is free; key_limit: the key's spending limit is reached
--         no_account | frozen | deleted
-- Rule:   members are admitted one by one: a refused hold does not push out a smaller one behind
--         it. Admission reads the rows it has locked, never a cache.
-- Locks:  user_flux rows in user order, FOR NO KEY UPDATE. Every open of a user passes here, so
--         keys and spending limits are checked without races.
-- Work:   the loop only counts; each table is written once for the whole batch, because a
--         statement costs more than the rows in it. Planned once a session: there is one good plan.
-- Commit: need not wait for the disk: a row is an intent, and a settlement that misses it
--         writes it again.
-- Twin:   tests/billing/test_open_requests_sql.py
CREATE OR REPLACE FUNCTION billing_open_requests(p_rows json, p_users text[])
RETURNS TABLE (ord bigint, outcome text, hold bigint, available bigint, existing uuid)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    m record;
    v_user text;
    v_free bigint := 0;
    v_added bigint := 0;
    v_spent bigint;
    v_room bigint;
    v_at int;
    v_now timestamptz := clock_timestamp();
    v_today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    -- By position in the batch: the hold of what is opened here, else null.
    v_holds bigint[] := '{}';
    -- What is opened here for this account, in order: id, hold, the API key, the client's key.
    o_ids uuid[] := '{}';
    o_holds bigint[] := '{}';
    o_api_keys text[] := '{}';
    o_keys text[] := '{}';
    -- By account: what is added to its holds.
    a_user text[] := '{}';
    a_added bigint[] := '{}';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM 1 FROM user_flux f WHERE f.user_id = ANY (p_users)
    ORDER BY f.user_id FOR NO KEY UPDATE;

    FOR m IN
        SELECT r.*, f.flux, f.held, f.frozen, f.deleted_at, f.user_id IS NOT NULL AS has_account,
               l.hold AS open_hold, k.id AS taken_by,
               r.kind || ' ' || r.client_key AS key
        FROM ROWS FROM (json_to_recordset(p_rows) AS (
            id uuid, user_id text, api_key_id text, kind text, client_key text, floor bigint,
            wanted bigint, limit_day bigint, limit_month bigint, limit_total bigint
        )) WITH ORDINALITY AS r (
            id, user_id, api_key_id, kind, client_key, floor, wanted, limit_day, limit_month,
            limit_total, position
        )
        LEFT JOIN user_flux f ON f.user_id = r.user_id
        LEFT JOIN llm_request_log l ON l.id = r.id
        LEFT JOIN llm_request_log k ON k.user_id = r.user_id AND k.kind = r.kind
            AND k.client_key = r.client_key AND k.state <> 'voided'
        ORDER BY r.user_id, r.position
    LOOP
        IF m.user_id IS DISTINCT FROM v_user THEN
            IF v_added > 0 THEN
                a_user := a_user || v_user;
                a_added := a_added || v_added;
            END IF;
            v_user := m.user_id;
            v_free := greatest(0, m.flux - m.held);
            v_added := 0;
            o_ids := '{}';
            o_holds := '{}';
            o_api_keys := '{}';
            o_keys := '{}';
        END IF;
        ord := m.position;
        hold := 0;
        available := v_free;
        existing := NULL;

        IF NOT m.has_account THEN
            outcome := 'no_account'; RETURN NEXT; CONTINUE;
        END IF;
        IF m.deleted_at IS NOT NULL THEN
            outcome := 'deleted'; RETURN NEXT; CONTINUE;
        END IF;
        hold := coalesce(m.open_hold, o_holds[array_position(o_ids, m.id)]);
        IF hold IS NOT NULL THEN
            outcome := 'replayed'; RETURN NEXT; CONTINUE;
        END IF;
        hold := 0;
        IF m.client_key IS NOT NULL THEN
            existing := coalesce(m.taken_by, o_ids[array_position(o_keys, m.key)]);
            IF existing IS NOT NULL THEN
                outcome := 'duplicate'; RETURN NEXT; CONTINUE;
            END IF;
        END IF;
        IF m.frozen THEN
            outcome := 'frozen'; RETURN NEXT; CONTINUE;
        END IF;

        v_room := v_free;
        IF m.limit_day IS NOT NULL OR m.limit_month IS NOT NULL OR m.limit_total IS NOT NULL THEN
            SELECT coalesce(sum(l.hold), 0) INTO v_spent FROM llm_request_log l
            WHERE l.user_id = m.user_id AND l.settled_at IS NULL AND l.api_key_id = m.api_key_id;
            SELECT v_spent + coalesce(sum(o.hold), 0) INTO v_spent
            FROM unnest(o_api_keys, o_holds) AS o (api_key_id, hold) WHERE o.api_key_id = m.api_key_id;
            SELECT least(
                v_room,
                m.limit_day - v_spent - coalesce(sum(s.flux) FILTER (WHERE s.day = v_today), 0),
                m.limit_month - v_spent - coalesce(
                    sum(s.flux) FILTER (WHERE s.day >= date_trunc('month', v_today)::date), 0),
                m.limit_total - v_spent - coalesce(sum(s.flux), 0)
            ) INTO v_room
            FROM api_key_spend s WHERE s.user_id = m.user_id AND s.api_key_id = m.api_key_id;
        END IF;
        IF v_free < m.floor OR v_room < m.floor THEN
            outcome := CASE WHEN v_free < m.floor THEN 'insufficient' ELSE 'key_limit' END;
            available := greatest(0, v_room);
            RETURN NEXT;
            CONTINUE;
        END IF;

        hold := least(m.wanted, v_room);
        v_holds[ord] := hold;
        o_ids := o_ids || m.id;
        o_holds := o_holds || hold;
        o_api_keys := o_api_keys || m.api_key_id;
        o_keys := o_keys || m.key;
        v_free := v_free - hold;
        v_added := v_added + hold;
        outcome := 'opened';
        RETURN NEXT;
    END LOOP;
    IF v_added > 0 THEN
        a_user := a_user || v_user;
        a_added := a_added || v_added;
    END IF;

    WITH opened AS (
        INSERT INTO llm_request_log (
            id, user_id, api_key_id, kind, client_key, input_hash, state, hold, model, attempts,
            stream, prompt_estimate, usage_source, price_version, flux_consumed, unbilled,
            instance_id, opened_at, deadline_at, checkpoint
        )
        SELECT r.id, r.user_id, r.api_key_id, r.kind, r.client_key, decode(r.input_hash, 'hex'),
               'open', v_holds[r.position], r.model, 0, r.stream, r.prompt_estimate, 'none',
               r.price_version, 0, 0, r.instance_id, v_now,
               v_now + make_interval(secs => r.deadline_s), 0
        FROM ROWS FROM (json_to_recordset(p_rows) AS (
            id uuid, user_id text, api_key_id text, kind text, client_key text, input_hash text,
            model text, stream boolean, price_version int, prompt_estimate int, instance_id text,
            deadline_s int
        )) WITH ORDINALITY AS r (
            id, user_id, api_key_id, kind, client_key, input_hash, model, stream, price_version,
            prompt_estimate, instance_id, deadline_s, position
        )
        WHERE v_holds[r.position] IS NOT NULL
    )
    UPDATE user_flux f SET held = f.held + a.added
    FROM unnest(a_user, a_added) AS a (user_id, added) WHERE f.user_id = a.user_id;
END $$;
