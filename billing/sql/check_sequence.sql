-- check_sequence.sql: accounts whose entries are not numbered 1..n, n on the account (I2).
--
-- In:     user_id text or null: everybody; since: not used, a sequence has no beginning but 1
-- Out:    user_id, row, why; one row a broken account
-- Rule:   count = newest = ledger_seq, the oldest is 1; a number counted twice is a hole elsewhere
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(f.user_id, t.user_id), 'account',
       format('%%s entries, numbered %%s to %%s, but ledger_seq is %%s',
              coalesce(t.entries, 0), t.oldest, t.newest, f.ledger_seq)
FROM (
    SELECT user_id, ledger_seq FROM user_flux
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
) AS f
FULL JOIN (
    SELECT user_id, count(*) AS entries, min(user_seq) AS oldest, max(user_seq) AS newest
    FROM flux_transaction
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
    GROUP BY user_id
) AS t USING (user_id)
WHERE (coalesce(t.entries, 0), coalesce(t.newest, 0), coalesce(t.oldest, 1))
      IS DISTINCT FROM (f.ledger_seq, f.ledger_seq, 1)
