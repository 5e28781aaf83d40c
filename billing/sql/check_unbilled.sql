-- check_unbilled.sql: charges booked as unbilled although the request's own hold covered them.
--
-- In:     user_id text or null: everybody; since timestamptz or null: settled from then on
-- Out:    user_id, row, why; one row a broken request
-- Rule:   a settlement debits least(charge, hold and what is free beside it, balance). Where the
--         hold covers the charge only an empty account leaves something: its debit ends at 0, or
--         there is none and the account was empty then. A frozen account may hold more than it has.
-- Clock:  settled_at is read before the account's lock is waited for, so `then` is a minute wide
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT l.user_id, format('request %%s', l.id),
       format('held %%s, which covered its charge of %%s, but %%s are unbilled', l.hold,
              l.flux_consumed + l.unbilled, l.unbilled)
FROM llm_request_log l
LEFT JOIN flux_transaction t
       ON t.user_id = l.user_id AND t.request_id = 'llm:' || l.id AND l.flux_consumed > 0
WHERE l.unbilled > 0 AND l.state = 'settled' AND l.hold >= l.flux_consumed + l.unbilled
  AND t.balance_after IS DISTINCT FROM 0
  AND (l.flux_consumed > 0 OR NOT EXISTS (
        SELECT FROM flux_transaction e
        LEFT JOIN flux_transaction n ON n.user_id = e.user_id AND n.user_seq = e.user_seq + 1
        WHERE e.user_id = l.user_id AND e.balance_after = 0
          AND e.created_at <= l.settled_at + interval '1 minute'
          AND (n.created_at IS NULL OR n.created_at >= l.settled_at - interval '1 minute')))
  AND (%(user_id)s::text IS NULL OR l.user_id = %(user_id)s::text)
  AND (%(since)s::timestamptz IS NULL OR l.settled_at >= %(since)s::timestamptz)
