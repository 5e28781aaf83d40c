-- read_refusal.sql: one refused request, if it is this user's.
--
-- In:     user_id text, id uuid
-- Out:    one row with the columns of read_requests_and_refusals.sql, or none
-- Locks:  none
-- Twin:   tests/billing/test_api.py
SELECT id, kind, model, false, 'refused', 'refused', status, NULL, NULL, NULL, 'none', 0, 0, 0, at,
       at, NULL, NULL, code
FROM refused_request
WHERE id = %(id)s AND user_id = %(user_id)s
