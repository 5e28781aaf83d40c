-- find_orphans.sql: open requests nobody will end any more.
--
-- In:     user_id text or null: everybody; since timestamptz or null: opened from then on
--         settling_s int: how long after a restart of the database instances may be away
-- Out:    id, user_id, instance_id, state, hold, why; oldest first
-- Rule:   the deadline has passed, or the instance has no session: on the database's clock. Right
--         after the database itself started nobody has one yet, so only deadlines count.
-- Locks:  none; lock_orphan.sql looks again under the row's lock
-- Twin:   tests/billing/test_orphans.py
SELECT l.id, l.user_id, l.instance_id, l.state, l.hold,
       CASE WHEN l.deadline_at < clock_timestamp() THEN 'deadline passed'
            ELSE 'instance gone' END
FROM llm_request_log l
WHERE l.settled_at IS NULL AND l.state IN ('open', 'streaming')
  AND (l.deadline_at < clock_timestamp() OR (
        pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => %(settling_s)s)
        AND left('airi ' || l.instance_id, 63) NOT IN (
            SELECT a.application_name FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.application_name IS NOT NULL)))
  AND (%(user_id)s::text IS NULL OR l.user_id = %(user_id)s::text)
  AND (%(since)s::timestamptz IS NULL OR l.opened_at >= %(since)s::timestamptz)
ORDER BY l.id
