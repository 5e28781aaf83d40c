-- read_requests_and_refusals.sql: as read_requests.sql, with what was refused before it was opened.
--
-- In:     user_id text, page int, before uuid or null (exclusive)
-- Out:    the columns of read_requests.sql; a refused request has the state and the outcome
--         `refused`, and used, held and cost nothing
-- Rule:   both are in the order of their ids, so a page is among the first of each; what has a row
--         of its own is that row
-- Locks:  none
-- Twin:   tests/billing/test_api.py, tests/perf/test_scans.py
SELECT id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
       cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
       duration_ms, ttft_ms, error_code
FROM (SELECT DISTINCT ON (id) * FROM (
    (SELECT id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
            cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
            duration_ms, ttft_ms, error_code, false AS is_refused
     FROM llm_request_log
     WHERE user_id = %(user_id)s
       AND id < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
     ORDER BY id DESC LIMIT %(page)s)
    UNION ALL
    (SELECT r.id, r.kind, r.model, false, 'refused', 'refused', r.status, NULL, NULL, NULL, 'none',
            0, 0, 0, r.at, r.at, NULL, NULL, r.code, true
     FROM refused_request r
     WHERE r.user_id = %(user_id)s
       AND r.id < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
     ORDER BY r.id DESC LIMIT %(page)s)
) AS every ORDER BY id DESC, is_refused) AS merged
ORDER BY id DESC LIMIT %(page)s
