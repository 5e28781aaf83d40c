-- check_charges.sql: requests whose charge does not follow from their row (I7).
--
-- In:     user_id text or null: everybody; since timestamptz or null: settled from then on
-- Out:    user_id, row, why; one row a broken request
-- Rule:   billing.pricing.charge_of, in numeric: tokens times the pinned rates, divided by 1,000
--         exactly (as times 0.001), rounded up once, at least the minimum; a completed answer
--         with estimated usage, or with estimated parts, costs at least the flat price. What is
--         not settled costs nothing, nor does what generated nothing.
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py, against billing.pricing
SELECT l.user_id, format('request %%s', l.id),
       CASE WHEN p.id IS NULL THEN format('price version %%s does not exist', l.price_version)
            ELSE format('was charged %%s and %%s unbilled, but its usage costs %%s',
                        l.flux_consumed, l.unbilled, coalesce(c.charge::text, 'an unknown sum'))
       END
FROM llm_request_log l
LEFT JOIN price_version p ON p.id = l.price_version
CROSS JOIN LATERAL (
    SELECT CASE WHEN l.state = 'settled' AND l.usage_source <> 'none' THEN greatest(
        p.minimum_flux,
        ceil(0.001 * (
            (l.prompt_tokens - coalesce(l.cached_tokens, 0)) * p.flux_per_1k_input
            + coalesce(l.cached_tokens, 0) * p.flux_per_1k_cached
            + l.completion_tokens * p.flux_per_1k_output
        )),
        CASE WHEN l.outcome = 'completed' AND l.usage_source IN ('estimated', 'completed')
             THEN p.flux_per_request ELSE 0 END
    ) ELSE 0 END AS charge
) AS c
WHERE (p.id IS NULL OR c.charge IS DISTINCT FROM l.flux_consumed + l.unbilled
       OR l.state = 'settled' AND (l.prompt_tokens IS NULL OR l.completion_tokens IS NULL
                                   OR l.cached_tokens > l.prompt_tokens))
  AND (%(user_id)s::text IS NULL OR l.user_id = %(user_id)s::text)
  AND (%(since)s::timestamptz IS NULL OR l.settled_at >= %(since)s::timestamptz)
