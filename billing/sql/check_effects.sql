-- check_effects.sql: keys that had more than one effect (I4).
--
-- In:     user_id text or null: everybody; since timestamptz or null: repeated from then on
-- Out:    user_id, row, why; one row a key
-- Rule:   one entry a request_id, one reversal an entry, one request a client key and kind
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT user_id, format('key %%s', request_id), format('has %%s entries', count(*))
FROM flux_transaction
WHERE request_id IS NOT NULL
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
GROUP BY user_id, request_id
HAVING count(*) > 1
   AND (%(since)s::timestamptz IS NULL OR max(created_at) >= %(since)s::timestamptz)
UNION ALL
SELECT user_id, format('entry %%s', reverses_seq), format('is reversed %%s times', count(*))
FROM flux_transaction
WHERE reverses_seq IS NOT NULL
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
GROUP BY user_id, reverses_seq
HAVING count(*) > 1
   AND (%(since)s::timestamptz IS NULL OR max(created_at) >= %(since)s::timestamptz)
UNION ALL
SELECT user_id, format('client key %%s (%%s)', client_key, kind),
       format('stands for %%s requests', count(*))
FROM llm_request_log
WHERE client_key IS NOT NULL AND state <> 'voided'
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
GROUP BY user_id, kind, client_key
HAVING count(*) > 1
   AND (%(since)s::timestamptz IS NULL OR max(opened_at) >= %(since)s::timestamptz)
