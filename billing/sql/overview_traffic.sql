-- overview_traffic.sql: requests and failures by model, and how soon they answered, in one pass.
--
-- In:     first uuid: ids are time-ordered, so this is the beginning; bounds int[]: milliseconds
--         that separate the bins of time to first token; slot interval: the length of a slot
-- Out:    model or null, slot (when it began) or null, bin or null, requests, failures:
--         a row for each model, and one for each slot and bin (bin 0 is below bounds[1])
-- Rule:   a client that hangs up is no failure of ours. Bins instead of percentiles: counting
--         needs neither a sort nor the rows of one slot in memory.
-- Locks:  none
-- Twin:   tests/billing/test_overview.py
WITH counted AS MATERIALIZED (
    SELECT model, date_bin(%(slot)s::interval, opened_at, 'epoch'::timestamptz) AS slot,
           width_bucket(ttft_ms, %(bounds)s::int[]) AS bin,
           count(*) AS requests,
           count(*) FILTER (WHERE outcome NOT IN ('completed', 'client_gone')) AS failures
    FROM llm_request_log
    WHERE id >= %(first)s::uuid
    GROUP BY 1, 2, 3
)
SELECT model, NULL::timestamptz, NULL::int, sum(requests)::bigint, sum(failures)::bigint
FROM counted GROUP BY model
UNION ALL
SELECT NULL, slot, bin, sum(requests)::bigint, 0
FROM counted WHERE bin IS NOT NULL GROUP BY slot, bin
