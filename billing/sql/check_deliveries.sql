-- check_deliveries.sql: voided requests that delivered something after all (I9, I11).
--
-- In:     user_id text or null: everybody; since timestamptz or null: voided from then on
-- Out:    user_id, row, why; one row a broken request
-- Rule:   what is voided has sent no byte, counted no token and kept no usage: it was for nothing
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT user_id, format('request %%s', id),
       format('is voided, but its first byte left at %%s, %%s tokens were marked and %%s counted (%%s)',
              coalesce(first_byte_at::text, 'no time'), checkpoint,
              coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0), usage_source)
FROM llm_request_log
WHERE state = 'voided'
  AND (first_byte_at IS NOT NULL OR checkpoint <> 0 OR usage_source <> 'none'
       OR coalesce(prompt_tokens, completion_tokens, cached_tokens) IS NOT NULL)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
  AND (%(since)s::timestamptz IS NULL OR settled_at >= %(since)s::timestamptz)
