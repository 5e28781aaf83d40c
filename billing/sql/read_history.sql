-- read_history.sql: one page of a user's ledger, newest first.
--
-- In:     user_id text, page int (rows wanted), skip int (newer rows to pass over)
-- Out:    id, type, amount, description, metadata, created_at; at most `page` rows
-- Rule:   ordered by the per-user sequence, which is dense: a page is found by arithmetic
-- Locks:  none
-- Twin:   tests/billing/test_api.py
SELECT t.id, t.type, t.amount, t.description, t.metadata, t.created_at
FROM user_flux f
JOIN flux_transaction t ON t.user_id = f.user_id AND t.user_seq <= f.ledger_seq - %(skip)s
WHERE f.user_id = %(user_id)s
ORDER BY t.user_seq DESC LIMIT %(page)s
