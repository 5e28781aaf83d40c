-- check_key_spend.sql: days on which an API key did not spend what the ledger says it did.
--
-- In:     user_id text or null: everybody; since timestamptz or null: from that UTC day on
-- Out:    user_id, row, why; one row a key and day
-- Rule:   api_key_spend = sum of the debits of the key's requests, by the UTC day of the entry
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(s.user_id, d.user_id),
       format('key %%s on %%s', coalesce(s.api_key_id, d.api_key_id), coalesce(s.day, d.day)),
       format('spent %%s, but its debits add up to %%s', coalesce(s.flux, 0), coalesce(d.flux, 0))
FROM (
    SELECT user_id, api_key_id, day, flux FROM api_key_spend
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
) AS s
FULL JOIN (
    SELECT l.user_id, l.api_key_id, (t.created_at AT TIME ZONE 'UTC')::date AS day,
           sum(t.amount) AS flux
    FROM flux_transaction t
    JOIN llm_request_log l ON l.user_id = t.user_id AND 'llm:' || l.id = t.request_id
    WHERE t.type = 'debit' AND l.api_key_id IS NOT NULL
      AND (%(user_id)s::text IS NULL OR t.user_id = %(user_id)s::text)
    GROUP BY 1, 2, 3
) AS d USING (user_id, api_key_id, day)
WHERE s.flux IS DISTINCT FROM d.flux
  AND (%(since)s::timestamptz IS NULL
       OR coalesce(s.day, d.day) >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date)
