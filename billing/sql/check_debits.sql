-- check_debits.sql: debits without their request, and requests without their debit.
--
-- In:     user_id text or null: everybody; since timestamptz or null: made or settled from then on
-- Out:    user_id, row, why; one row a disagreement
-- Rule:   a request that cost something has the one debit `llm:<id>` of its user, over as much;
--         a debit has such a request, settled
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(t.user_id, l.user_id),
       coalesce(l.key, t.request_id, format('entry %%s', t.user_seq)),
       format('the ledger says %%s, the request %%s', coalesce(t.amount::text, 'nothing'),
              CASE WHEN l.key IS NULL THEN 'nothing'
                   ELSE format('%%s (%%s)', l.flux_consumed, l.state) END)
FROM (
    SELECT user_id, request_id, user_seq, amount, created_at FROM flux_transaction
    WHERE type = 'debit' AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
) AS t
FULL JOIN (
    SELECT user_id, 'llm:' || id AS key, state, flux_consumed, settled_at FROM llm_request_log
    WHERE flux_consumed <> 0 AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
) AS l ON l.user_id = t.user_id AND l.key = t.request_id
WHERE (t.amount IS DISTINCT FROM l.flux_consumed OR l.state <> 'settled')
  AND (%(since)s::timestamptz IS NULL
       OR coalesce(t.created_at, l.settled_at) >= %(since)s::timestamptz)
