-- check_reversals.sql: corrections that do not undo the entry they name (I3).
--
-- In:     user_id text or null: everybody; since timestamptz or null: entries made from then on
-- Out:    user_id, row, why; one row a broken entry
-- Rule:   a reversal names an entry of the same user that came before, and moves as much back
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT r.user_id, format('entry %%s', r.user_seq),
       format('reverses entry %%s, but does not undo it', r.reverses_seq)
FROM flux_transaction r
LEFT JOIN flux_transaction t
       ON t.user_id = r.user_id AND t.user_seq = r.reverses_seq AND t.user_seq < r.user_seq
WHERE r.reverses_seq IS NOT NULL
  AND (r.balance_after - r.balance_before)
      IS DISTINCT FROM (t.balance_before - t.balance_after)
  AND (%(user_id)s::text IS NULL OR r.user_id = %(user_id)s::text)
  AND (%(since)s::timestamptz IS NULL OR r.created_at >= %(since)s::timestamptz)
