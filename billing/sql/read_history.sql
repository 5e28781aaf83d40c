-- read_history.sql: one page of a user's ledger, newest first.
--
-- In:     user_id text, page int (rows wanted), skip int (newer rows to pass over)
-- Out:    id, type, amount, description, metadata, created_at; at most `page` rows
-- Rule:   ordered by the per-user sequence, which is dense: a page is found by arithmetic, and a
--         deep one costs no more than the first
-- Locks:  none
-- Twin:   tests/billing/test_api.py, tests/perf/test_scans.py
SELECT id, type, amount, description, metadata, created_at
FROM flux_transaction
WHERE user_id = %(user_id)s
  AND user_seq <= (SELECT ledger_seq FROM user_flux WHERE user_id = %(user_id)s) - %(skip)s
ORDER BY user_seq DESC LIMIT %(page)s
