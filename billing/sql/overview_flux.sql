-- overview_flux.sql: Flux that went out and came in, a row for each UTC day.
--
-- In:     first date, days int: as many UTC days from there
-- Out:    day, used (debits), credited (every other increase), withdrawn (every other decrease)
-- Rule:   there is no index on created_at, and reading it from a million rows takes longer than
--         everything else here. Ids follow it to within the length of a transaction, so where a day
--         begins is found by halving the primary key. An entry posted in the very second of midnight may
--         count for the day beside its own.
-- Locks:  none
-- Twin:   tests/billing/test_overview.py
WITH RECURSIVE halves AS (
    SELECT place, (%(first)s::date + place)::timestamp AT TIME ZONE 'UTC' AS midnight,
           ids.low, ids.high
    FROM generate_series(0, %(days)s::int) AS place
    CROSS JOIN (SELECT min(id) AS low, max(id) + 1 AS high FROM flux_transaction) AS ids
    UNION ALL
    SELECT halves.place, halves.midnight,
           CASE WHEN middle.is_before THEN middle.id + 1 ELSE halves.low END,
           CASE WHEN middle.is_before THEN halves.high ELSE middle.id END
    FROM halves
    CROSS JOIN LATERAL (
        SELECT t.created_at < halves.midnight AS is_before, (halves.low + halves.high) / 2 AS id
        FROM flux_transaction t WHERE t.id >= (halves.low + halves.high) / 2
        ORDER BY t.id LIMIT 1
    ) AS middle
    WHERE halves.low < halves.high
), begins AS (
    SELECT place, low AS id FROM halves WHERE low = high
)
SELECT %(first)s::date + begins.place, moved.used, moved.credited, moved.withdrawn
FROM begins
JOIN begins AS ends ON ends.place = begins.place + 1
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE type = 'debit'), 0)::bigint AS used,
           coalesce(sum(amount) FILTER (WHERE balance_after > balance_before), 0)::bigint
               AS credited,
           coalesce(sum(amount) FILTER (
               WHERE balance_after < balance_before AND type <> 'debit'), 0)::bigint AS withdrawn
    FROM flux_transaction t WHERE t.id >= begins.id AND t.id < ends.id
) AS moved
