-- overview_open.sql: requests under way, and whether the accounts hold exactly what they hold.
--
-- In:     newest int: of how many of the newest requests the users' accounts are looked at as well
-- Out:    requests, oldest (when it opened, or null), held (by the requests), accounts (what the
--         accounts looked at hold); one row
-- Rule:   one statement, so both sums are of one snapshot and differ only if the books are wrong.
--         What an account holds has no index, for every request changes it, so only accounts are
--         looked at that have an open request or may just have had one: a hold is lost, or kept,
--         where a request ends. Others are found by check_holds.sql, which reads them all.
-- Locks:  none
-- Twin:   tests/billing/test_overview.py
WITH under_way AS MATERIALIZED (
    SELECT user_id, count(*) AS requests, min(opened_at) AS oldest, sum(hold) AS held
    FROM llm_request_log WHERE settled_at IS NULL
    GROUP BY user_id
), lately AS (
    SELECT user_id FROM llm_request_log ORDER BY id DESC LIMIT %(newest)s
), people AS (
    SELECT user_id FROM under_way UNION SELECT user_id FROM lately
)
SELECT coalesce(sum(requests), 0)::bigint, min(oldest), coalesce(sum(held), 0)::bigint,
       -- A subquery for each of them: a join would read every account to find a thousand.
       (SELECT coalesce(sum((SELECT f.held FROM user_flux f WHERE f.user_id = people.user_id)), 0)
        FROM people)::bigint
FROM under_way
