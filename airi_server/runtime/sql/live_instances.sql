-- live_instances.sql: the instances that are running, by the names of their sessions.
--
-- In:     prefix text: what the name of a session begins with; the instance's id follows
-- Out:    the ids, in their order; a long one is cut off, as PostgreSQL cuts off the name
-- Locks:  none
-- Twin:   tests/chats/test_presence.py
SELECT DISTINCT substr(a.application_name, length(%(prefix)s) + 1)
FROM pg_stat_activity a
WHERE a.datname = current_database() AND starts_with(a.application_name, %(prefix)s)
ORDER BY 1
