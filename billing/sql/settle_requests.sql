-- settle_requests.sql: close a batch of requests, each exactly once, in one round trip.
--
-- In:     p_rows json array, one object a request, in the order to settle:
--         id uuid, user_id text, state settled|voided, charge bigint (whole Flux, 0 when voided),
--         model, upstream, upstream_key_id text, attempts int, failures json, stream bool,
--         status int, prompt_tokens, completion_tokens, cached_tokens int, usage_source text,
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
-- Commit: waits for the disk. Nothing is answered before.
-- Twin:   tests/billing/test_settle_requests_sql.py
CREATE OR REPLACE FUNCTION billing_settle_requests(p_rows json, p_ids uuid[], p_users text[])
RETURNS TABLE (
    ord bigint, state text, charged bigint, unbilled bigint, balance bigint, replayed boolean
)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    m record;
    v_user text;
    v_flux bigint;
    v_held bigint;
    v_seq bigint;
    v_hold bigint;
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM 1 FROM llm_request_log l WHERE l.id = ANY (p_ids) ORDER BY l.id FOR NO KEY UPDATE;
    PERFORM 1 FROM user_flux f WHERE f.user_id = ANY (p_users)
    ORDER BY f.user_id FOR NO KEY UPDATE;

    FOR m IN
        SELECT r.*, f.flux, f.held, f.ledger_seq
        FROM ROWS FROM (json_to_recordset(p_rows) AS (
            id uuid, user_id text, state text, charge bigint, model text, upstream text,
            upstream_key_id text, attempts int, failures jsonb, stream boolean, status int,
            prompt_tokens int, completion_tokens int, cached_tokens int, usage_source text,
            cost_usd numeric, outcome text, error_code text, duration_ms int, ttft_ms int,
            result text, api_key_id text, kind text, client_key text, input_hash text,
            price_version int, prompt_estimate int, instance_id text
        )) WITH ORDINALITY AS r (
            id, user_id, state, charge, model, upstream, upstream_key_id, attempts, failures,
            stream, status, prompt_tokens, completion_tokens, cached_tokens, usage_source,
            cost_usd, outcome, error_code, duration_ms, ttft_ms, result, api_key_id, kind,
            client_key, input_hash, price_version, prompt_estimate, instance_id, position
        )
        JOIN user_flux f ON f.user_id = r.user_id
        ORDER BY r.user_id, r.position
    LOOP
        IF m.user_id IS DISTINCT FROM v_user THEN
            IF v_user IS NOT NULL THEN
                UPDATE user_flux f
                SET flux = v_flux, held = v_held, ledger_seq = v_seq, updated_at = v_now
                WHERE f.user_id = v_user;
            END IF;
            v_user := m.user_id;
            v_flux := m.flux;
            v_held := m.held;
            v_seq := m.ledger_seq;
        END IF;
        ord := m.position;
        state := m.state;
        replayed := false;

        SELECT l.hold INTO v_hold FROM llm_request_log l
        WHERE l.id = m.id AND l.state IN ('open', 'streaming');
        IF NOT FOUND THEN
            SELECT l.state, l.flux_consumed, l.unbilled INTO state, charged, unbilled
            FROM llm_request_log l WHERE l.id = m.id;
            IF FOUND THEN
                replayed := true;
                balance := v_flux;
                RETURN NEXT;
                CONTINUE;
            END IF;
            state := m.state;
            v_hold := 0;
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
        END IF;

        v_held := v_held - v_hold;
        charged := least(m.charge, v_hold + greatest(0, v_flux - v_held - v_hold), v_flux);
        unbilled := m.charge - charged;
        UPDATE llm_request_log l
        SET state = m.state, flux_consumed = charged, unbilled = m.charge - charged,
            upstream = m.upstream, upstream_key_id = m.upstream_key_id, attempts = m.attempts,
            failures = m.failures, status = m.status, prompt_tokens = m.prompt_tokens,
            completion_tokens = m.completion_tokens, cached_tokens = m.cached_tokens,
            usage_source = m.usage_source, provider_cost_usd = m.cost_usd, outcome = m.outcome,
            error_code = m.error_code, settled_at = v_now, duration_ms = m.duration_ms,
            ttft_ms = m.ttft_ms
        WHERE l.id = m.id;

        IF charged > 0 THEN
            v_seq := v_seq + 1;
            INSERT INTO flux_transaction (
                user_id, user_seq, type, amount, balance_before, balance_after, request_id,
                description, metadata, created_at
            ) VALUES (
                m.user_id, v_seq, 'debit', charged, v_flux, v_flux - charged,
                'llm:' || m.id::text, 'llm_request',
                jsonb_strip_nulls(jsonb_build_object(
                    'model', m.model, 'promptTokens', m.prompt_tokens,
                    'completionTokens', m.completion_tokens, 'source', 'llm.request',
                    'requestId', m.id,
                    'requestedAmount', CASE WHEN unbilled > 0 THEN m.charge END,
                    'unbilled', nullif(unbilled, 0))),
                v_now
            );
            v_flux := v_flux - charged;
            IF m.api_key_id IS NOT NULL THEN
                INSERT INTO api_key_spend AS s (user_id, api_key_id, day, flux)
                VALUES (m.user_id, m.api_key_id, (v_now AT TIME ZONE 'UTC')::date, charged)
                ON CONFLICT (user_id, api_key_id, day) DO UPDATE SET flux = s.flux + excluded.flux;
            END IF;
        END IF;
        IF m.result IS NOT NULL THEN
            INSERT INTO llm_request_result (request_id, user_id, body, created_at)
            VALUES (m.id, m.user_id, decode(m.result, 'base64'), v_now);
        END IF;
        balance := v_flux;
        RETURN NEXT;
    END LOOP;
    IF v_user IS NOT NULL THEN
        UPDATE user_flux f
        SET flux = v_flux, held = v_held, ledger_seq = v_seq, updated_at = v_now
        WHERE f.user_id = v_user;
    END IF;
END $$;
