-- count_unjudged.sql: open requests that are no orphans yet, by what speaks for them.
--
-- In:     user_id text or null: everybody; since timestamptz or null: opened from then on
--         settling_s int: how long after a restart of the database instances may be away
-- Out:    why, requests, hold, within_s: in how many seconds the last of them is judged anyway
-- Rule:   what find_orphans.sql leaves out of the open ones
-- Locks:  none
-- Twin:   tests/billing/test_orphans.py
SELECT why, count(*)::int, sum(hold)::bigint,
       ceil(extract(epoch FROM max(judged_at) - clock_timestamp()))::int
FROM (
    SELECT l.hold,
           CASE WHEN alive.pid IS NOT NULL THEN 'instance running'
                ELSE 'database just started' END AS why,
           CASE WHEN alive.pid IS NOT NULL THEN l.deadline_at
                ELSE least(l.deadline_at, pg_postmaster_start_time()
                           + make_interval(secs => %(settling_s)s)) END AS judged_at
    FROM llm_request_log l
    LEFT JOIN LATERAL (
        SELECT a.pid FROM pg_stat_activity a
        WHERE a.datname = current_database()
          AND a.application_name = left('airi ' || l.instance_id, 63)
        LIMIT 1
    ) AS alive ON true
    WHERE l.settled_at IS NULL AND l.state IN ('open', 'streaming')
      AND l.deadline_at >= clock_timestamp()
      AND (alive.pid IS NOT NULL OR
           pg_postmaster_start_time() >= clock_timestamp() - make_interval(secs => %(settling_s)s))
      AND (%(user_id)s::text IS NULL OR l.user_id = %(user_id)s::text)
      AND (%(since)s::timestamptz IS NULL OR l.opened_at >= %(since)s::timestamptz)
) AS waiting
GROUP BY why
ORDER BY why
