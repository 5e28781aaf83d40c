-- check_holds.sql: accounts whose holds are not those of their open requests (I6).
--
-- In:     user_id text or null: everybody; since: not used, a sum has no beginning
-- Out:    user_id, row, why; one row a broken account
-- Rule:   held = sum(hold) of the requests that have not ended
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(f.user_id, l.user_id), 'account',
       format('%%s held, but open requests hold %%s', f.held, coalesce(l.hold, 0))
FROM (
    SELECT user_id, held FROM user_flux
    WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s::text
) AS f
FULL JOIN (
    SELECT user_id, sum(hold) AS hold FROM llm_request_log
    WHERE state IN ('open', 'streaming')
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
    GROUP BY user_id
) AS l USING (user_id)
WHERE f.held IS DISTINCT FROM coalesce(l.hold, 0)
