-- read_balances.sql: the balances of several users in one round trip.
--
-- In:     users text[]
-- Out:    one row an existing, undeleted account: user_id, flux
-- Rule:   always the committed truth; the balance is not cached anywhere (ADR 0006)
-- Locks:  none
-- Twin:   tests/billing/test_balances.py
SELECT user_id, flux FROM user_flux WHERE user_id = ANY (%(users)s) AND deleted_at IS NULL
