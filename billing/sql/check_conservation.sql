-- check_conservation.sql: accounts whose balance is not the sum of their ledger (I1).
--
-- In:     user_id text or null: everybody; since: not used, a sum has no beginning
-- Out:    user_id, row, why; one row a broken account
-- Rule:   flux = sum(balance_after - balance_before), and a ledger has an account
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(f.user_id, t.user_id), 'account',
       CASE WHEN f.user_id IS NULL THEN format('entries worth %%s, but no account', t.moved)
            ELSE format('balance %%s, but the entries add up to %%s', f.flux, coalesce(t.moved, 0))
       END
FROM (
    SELECT user_id, flux FROM user_flux
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
) AS f
FULL JOIN (
    SELECT user_id, sum(balance_after - balance_before) AS moved FROM flux_transaction
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
    GROUP BY user_id
) AS t USING (user_id)
WHERE f.user_id IS NULL OR f.flux <> coalesce(t.moved, 0)
