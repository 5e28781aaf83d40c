-- lock_orphan.sql: take one orphan to end it, unless somebody else is at it or it is none now.
--
-- In:     id uuid; settling_s int, as in find_orphans.sql
-- Out:    one row or none: what a settlement needs of the row, then whether a byte was sent,
--         checkpoint, duration_ms and ttft_ms on the database's clock, which may have been set
--         back meanwhile: at least 0
-- Rule:   the rule of find_orphans.sql, looked at again under the lock
-- Locks:  the request row; a row that is locked is skipped: its owner or another reconciler
--         is closing it
-- Races:  billing_settle_requests compares the state again, so one of all wins
-- Twin:   tests/billing/test_orphans.py
SELECT l.id, l.user_id, l.api_key_id, l.kind, l.client_key, encode(l.input_hash, 'hex'), l.model,
       l.stream, l.price_version, l.prompt_estimate, l.instance_id,
       l.first_byte_at IS NOT NULL, l.checkpoint,
       greatest(0, least(
           2147483647, extract(epoch FROM clock_timestamp() - l.opened_at) * 1000))::int,
       -- `least` passes over nulls: asked alone it would name the largest number.
       CASE WHEN l.first_byte_at IS NOT NULL THEN
           greatest(0, least(
               2147483647, extract(epoch FROM l.first_byte_at - l.opened_at) * 1000))::int
       END
FROM llm_request_log l
WHERE l.id = %(id)s AND l.settled_at IS NULL AND l.state IN ('open', 'streaming')
  AND (l.deadline_at < clock_timestamp() OR (
        pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => %(settling_s)s)
        AND left('airi ' || l.instance_id, 63) NOT IN (
            SELECT a.application_name FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.application_name IS NOT NULL)))
FOR UPDATE SKIP LOCKED
