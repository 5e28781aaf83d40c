-- overview_open.sql: requests under way, and whether the accounts hold exactly what they hold.
--
-- In:     nothing
-- Out:    requests, oldest (when it opened, or null), held (by the requests), accounts (the same
--         sum as the accounts have it); one row
-- Rule:   one statement, so both sums are of one snapshot and differ only if the books are wrong
-- Locks:  none
-- Twin:   tests/billing/test_overview.py
SELECT under_way.requests, under_way.oldest, under_way.held,
       (SELECT coalesce(sum(held), 0)::bigint FROM user_flux)
FROM (
    SELECT count(*) AS requests, min(opened_at) AS oldest, coalesce(sum(hold), 0)::bigint AS held
    FROM llm_request_log WHERE settled_at IS NULL
) AS under_way
