-- read_requests.sql: one page of a user's own requests, newest first.
--
-- In:     user_id text, page int, before uuid or null (exclusive)
-- Out:    id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
--         cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
--         duration_ms, ttft_ms, error_code
-- Rule:   ids are time-ordered, so the cursor is an id; without one it is past the last
-- Locks:  none
-- Twin:   tests/billing/test_api.py, tests/perf/test_scans.py
SELECT id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
       cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
       duration_ms, ttft_ms, error_code
FROM llm_request_log
WHERE user_id = %(user_id)s
  AND id < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY id DESC LIMIT %(page)s
