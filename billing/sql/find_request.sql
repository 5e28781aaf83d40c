-- find_request.sql: what became of the request a client's key already stands for.
--
-- In:     id uuid, user_id text
-- Out:    one row (state, input_hash hex, flux_consumed, body or null), or none
-- Locks:  none
-- Twin:   tests/billing/test_requests.py
SELECT l.state, encode(l.input_hash, 'hex'), l.flux_consumed, r.body
FROM llm_request_log l
LEFT JOIN llm_request_result r ON r.request_id = l.id
WHERE l.id = %(id)s AND l.user_id = %(user_id)s
