-- read_capacity.sql: what a full account looked like: the balance after the newest top-up.
--
-- In:     user_id text
-- Out:    one row (balance_after), or none
-- Locks:  none
-- Twin:   tests/billing/test_api.py
SELECT balance_after FROM flux_transaction
WHERE user_id = %(user_id)s AND type IN ('credit', 'initial', 'promo')
ORDER BY user_seq DESC LIMIT 1
