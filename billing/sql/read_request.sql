-- read_request.sql: one request, if it is this user's.
--
-- In:     user_id text, id uuid
-- Out:    one row with the columns of read_requests.sql, or none
-- Locks:  none
-- Twin:   tests/billing/test_api.py
SELECT id, kind, model, stream, state, outcome, status, prompt_tokens, completion_tokens,
       cached_tokens, usage_source, flux_consumed, unbilled, hold, opened_at, settled_at,
       duration_ms, ttft_ms, error_code
FROM llm_request_log
WHERE id = %(id)s AND user_id = %(user_id)s
