-- settle_requests.sql: close a batch of requests, each exactly once, in one round trip.
--
-- In:     p_rows json array, one object a request, in the order to settle:
--         id uuid, user_id text, state settled|voided, charge bigint (whole Flux, 0 when voided),
--         model, upstream, upstream_key_id text, attempts int, failures json, stream bool,
--         status int, prompt_tokens, completion_tokens, cached_tokens int, usage_source text,
--         reported json (the upstream's own report, where it was not charged as it stands;
--         null or missing: not kept),
--         cost_usd numeric, outcome, error_code text, duration_ms, ttft_ms int,
--         result text (base64, kept for a replay; null: not kept), and what `open` was given:
--         api_key_id, kind, client_key, input_hash, price_version, prompt_estimate, instance_id
--         p_ids uuid[], p_users text[]: every id and every user of the batch once
-- Out:    one row a request, in any order: ord (from 1), state, charged, unbilled, balance,
--         replayed (true: it was closed before, and this is what was done then)
-- Rule:   the close is a compare-and-set on the state; who loses does nothing.
--         charged = least(charge, hold + what is free); the rest is unbilled.
--         A row the database forgot (it crashed before an open reached the disk) is written
--         again, closed; without its client key if a later request has taken that meanwhile.
-- Locks:  request rows in id order, then user_flux rows in user order, then the ledger.
-- Work:   the loop only counts; each table is written once for the whole batch, because a
--         statement costs more than the rows in it. Planned once a session: there is one good plan.
-- Commit: waits for the disk. Nothing is answered before.
-- Twin:   tests/billing/test_settle_requests_sql.py
CREATE OR REPLACE FUNCTION billing_settle_requests(p_rows json, p_ids uuid[], p_users text[])
RETURNS TABLE (
    ord bigint, state text, charged bigint, unbilled bigint, balance bigint, replayed boolean
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    m record;
    v_known bigint;
    v_user text;
    v_flux bigint;
    v_held bigint;
    v_seq bigint;
    v_now timestamptz := clock_timestamp();
    -- By position in the batch: what was charged (null: closed before), from which balance, and
    -- the number of its entry. They grow with what is put in: to count the rows is to read them.
    v_charged bigint[] := '{}';
    v_before bigint[] := '{}';
    v_entry bigint[] := '{}';
    -- By account: what it has and holds afterwards, and its last number.
    a_user text[] := '{}';
    a_flux bigint[] := '{}';
    a_held bigint[] := '{}';
    a_seq bigint[] := '{}';
BEGIN
    PERFORM 1 FROM llm_request_log l WHERE l.id = ANY (p_ids) ORDER BY l.id FOR NO KEY UPDATE;
    GET DIAGNOSTICS v_known = ROW_COUNT;
    PERFORM 1 FROM user_flux f WHERE f.user_id = ANY (p_users)
    ORDER BY f.user_id FOR NO KEY UPDATE;

    IF v_known < cardinality(p_ids) THEN
        FOR m IN
            SELECT r.*
            FROM ROWS FROM (json_to_recordset(p_rows) AS (
                id uuid, user_id text, model text, stream boolean, duration_ms int,
                api_key_id text, kind text, client_key text, input_hash text, price_version int,
                prompt_estimate int, instance_id text
            )) WITH ORDINALITY AS r (
                id, user_id, model, stream, duration_ms, api_key_id, kind, client_key, input_hash,
                price_version, prompt_estimate, instance_id, position
            )
            WHERE EXISTS (SELECT FROM user_flux f WHERE f.user_id = r.user_id)
            ORDER BY r.position
        LOOP
            CONTINUE WHEN EXISTS (SELECT FROM llm_request_log l WHERE l.id = m.id);
            INSERT INTO llm_request_log (
                id, user_id, api_key_id, kind, client_key, input_hash, state, hold, model,
                attempts, stream, prompt_estimate, usage_source, price_version, flux_consumed,
                unbilled, instance_id, opened_at, deadline_at, checkpoint
            ) VALUES (
                m.id, m.user_id, m.api_key_id, m.kind,
                CASE WHEN NOT EXISTS (
                    SELECT FROM llm_request_log l
                    WHERE l.user_id = m.user_id AND l.kind = m.kind
                      AND l.client_key = m.client_key AND l.state <> 'voided'
                ) THEN m.client_key END,
                decode(m.input_hash, 'hex'), 'open', 0, m.model, 0, m.stream, m.prompt_estimate,
                'none', m.price_version, 0, 0, m.instance_id,
                v_now - make_interval(secs => m.duration_ms / 1000.0), v_now, 0
            );
        END LOOP;
    END IF;

    FOR m IN
        SELECT r.position, r.user_id, r.state, r.charge, l.state AS was, l.hold,
               l.flux_consumed, l.unbilled, f.flux, f.held, f.ledger_seq,
               first_value(r.position) OVER of_id AS first_position,
               first_value(r.state) OVER of_id AS first_state,
               first_value(r.charge) OVER of_id AS first_charge
        FROM ROWS FROM (json_to_recordset(p_rows) AS (
            id uuid, user_id text, state text, charge bigint
        )) WITH ORDINALITY AS r (id, user_id, state, charge, position)
        JOIN user_flux f ON f.user_id = r.user_id
        JOIN llm_request_log l ON l.id = r.id
        WINDOW of_id AS (PARTITION BY r.id ORDER BY r.position)
        ORDER BY r.user_id, r.position
    LOOP
        IF m.user_id IS DISTINCT FROM v_user THEN
            IF v_user IS NOT NULL THEN
                a_user := a_user || v_user;
                a_flux := a_flux || v_flux;
                a_held := a_held || v_held;
                a_seq := a_seq || v_seq;
            END IF;
            v_user := m.user_id;
            v_flux := m.flux;
            v_held := m.held;
            v_seq := m.ledger_seq;
        END IF;
        ord := m.position;
        replayed := true;
        IF m.was NOT IN ('open', 'streaming') THEN
            state := m.was;
            charged := m.flux_consumed;
            unbilled := m.unbilled;
        ELSIF m.first_position < m.position THEN
            state := m.first_state;
            charged := v_charged[m.first_position];
            unbilled := m.first_charge - charged;
        ELSE
            replayed := false;
            state := m.state;
            v_held := v_held - m.hold;
            charged := least(m.charge, m.hold + greatest(0, v_flux - v_held - m.hold), v_flux);
            unbilled := m.charge - charged;
            v_charged[ord] := charged;
            v_before[ord] := v_flux;
            IF charged > 0 THEN
                v_seq := v_seq + 1;
                v_entry[ord] := v_seq;
                v_flux := v_flux - charged;
            END IF;
        END IF;
        balance := v_flux;
        RETURN NEXT;
    END LOOP;
    a_user := a_user || v_user;
    a_flux := a_flux || v_flux;
    a_held := a_held || v_held;
    a_seq := a_seq || v_seq;

    WITH ended AS MATERIALIZED (
        SELECT r.*, v_charged[r.position] AS charged, v_before[r.position] AS before,
               v_entry[r.position] AS entry
        FROM ROWS FROM (json_to_recordset(p_rows) AS (
            id uuid, user_id text, state text, charge bigint, model text, upstream text,
            upstream_key_id text, attempts int, failures jsonb, status int, prompt_tokens int,
            completion_tokens int, cached_tokens int, usage_source text, cost_usd numeric,
            outcome text, error_code text, duration_ms int, ttft_ms int, result text,
            api_key_id text, reported jsonb
        )) WITH ORDINALITY AS r (
            id, user_id, state, charge, model, upstream, upstream_key_id, attempts, failures,
            status, prompt_tokens, completion_tokens, cached_tokens, usage_source, cost_usd,
            outcome, error_code, duration_ms, ttft_ms, result, api_key_id, reported, position
        )
        WHERE v_charged[r.position] >= 0
    ), closed AS (
        UPDATE llm_request_log l
        SET state = e.state, flux_consumed = e.charged, unbilled = e.charge - e.charged,
            upstream = e.upstream, upstream_key_id = e.upstream_key_id, attempts = e.attempts,
            failures = e.failures, status = e.status, prompt_tokens = e.prompt_tokens,
            completion_tokens = e.completion_tokens, cached_tokens = e.cached_tokens,
            usage_source = e.usage_source, reported = e.reported,
            provider_cost_usd = e.cost_usd, outcome = e.outcome, error_code = e.error_code,
            settled_at = v_now, duration_ms = e.duration_ms, ttft_ms = e.ttft_ms
        FROM ended e WHERE l.id = e.id
    ), written AS (
        INSERT INTO flux_transaction (
            user_id, user_seq, type, amount, balance_before, balance_after, request_id,
            description, metadata, created_at
        )
        SELECT e.user_id, e.entry, 'debit', e.charged, e.before, e.before - e.charged,
               'llm:' || e.id::text, 'llm_request',
               jsonb_strip_nulls(jsonb_build_object(
                   'model', e.model, 'promptTokens', e.prompt_tokens,
                   'completionTokens', e.completion_tokens, 'source', 'llm.request',
                   'requestId', e.id,
                   'requestedAmount', CASE WHEN e.charge > e.charged THEN e.charge END,
                   'unbilled', nullif(e.charge - e.charged, 0))),
               v_now
        FROM ended e WHERE e.charged > 0 ORDER BY e.user_id, e.position
    ), spent AS (
        INSERT INTO api_key_spend AS s (user_id, api_key_id, day, flux)
        SELECT e.user_id, e.api_key_id, (v_now AT TIME ZONE 'UTC')::date, sum(e.charged)
        FROM ended e WHERE e.charged > 0 AND e.api_key_id IS NOT NULL
        GROUP BY e.user_id, e.api_key_id
        ON CONFLICT (user_id, api_key_id, day) DO UPDATE SET flux = s.flux + excluded.flux
    ), kept AS (
        INSERT INTO llm_request_result (request_id, user_id, body, created_at)
        SELECT e.id, e.user_id, decode(e.result, 'base64'), v_now
        FROM ended e WHERE e.result IS NOT NULL
    )
    UPDATE user_flux f
    SET flux = a.flux, held = a.held, ledger_seq = a.seq, updated_at = v_now
    FROM unnest(a_user, a_flux, a_held, a_seq) AS a (user_id, flux, held, seq)
    WHERE f.user_id = a.user_id;
END $$;
