-- check_bounds.sql: accounts outside their bounds (I5).
--
-- In:     user_id text or null: everybody; since: not used
-- Out:    user_id, row, why; one row a broken account
-- Rule:   flux >= 0, held >= 0, and flux >= held unless a chargeback froze the account
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT user_id, 'account', format('balance %%s with %%s held', flux, held)
FROM user_flux
WHERE (flux < 0 OR held < 0 OR (flux < held AND NOT frozen))
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
