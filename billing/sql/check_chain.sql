-- check_chain.sql: entries that do not begin where the one before ended (I2).
--
-- In:     user_id text or null: everybody; since timestamptz or null: entries made from then on
-- Out:    user_id, row, why; one row a broken entry
-- Rule:   balance_before = balance_after of user_seq - 1, 0 for the first; the newest
--         balance_after is the account's. Ordered by user_seq, never by time or id.
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT t.user_id, format('entry %%s', t.user_seq),
       CASE WHEN t.balance_before <> t.expected
            THEN format('begins at %%s, but the one before ended at %%s',
                        t.balance_before, t.expected)
            ELSE format('is the newest and ends at %%s, but the balance is %%s',
                        t.balance_after, f.flux)
       END
FROM (
    SELECT user_id, user_seq, balance_before, balance_after, created_at,
           lag(balance_after, 1, 0::bigint) OVER ledger AS expected,
           lead(user_seq) OVER ledger IS NULL AS is_newest
    FROM flux_transaction
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
    WINDOW ledger AS (PARTITION BY user_id ORDER BY user_seq)
) AS t
LEFT JOIN user_flux f ON f.user_id = t.user_id
WHERE (t.balance_before <> t.expected OR t.is_newest AND t.balance_after <> f.flux)
  AND (%(since)s::timestamptz IS NULL OR t.created_at >= %(since)s::timestamptz)
