-- read_requests.sql: one page of a user's own requests, newest first.
--
-- In:     user_id text, page int, before uuid or null (exclusive), only uuid or null
-- Out:    id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
--         cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
--         duration_ms, ttft_ms, error_code
-- Rule:   ids are time-ordered, so the cursor is an id
-- Locks:  none
-- Twin:   tests/billing/test_api.py
SELECT id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
       cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
       duration_ms, ttft_ms, error_code
FROM llm_request_log
WHERE user_id = %(user_id)s
  AND (%(before)s::uuid IS NULL OR id < %(before)s::uuid)
  AND (%(only)s::uuid IS NULL OR id = %(only)s::uuid)
ORDER BY id DESC LIMIT %(page)s
