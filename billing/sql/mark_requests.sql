-- mark_requests.sql: note that streams have begun, and how many tokens each has delivered.
--
-- In:     p_rows json array: id uuid, checkpoint int (tokens forwarded so far)
--         p_ids uuid[], the same ids
-- Out:    nothing; an unknown or closed row is left alone
-- Rule:   the first mark is the first byte; a checkpoint never goes backwards
-- Locks:  request rows in id order, as settlement does
-- Commit: need not wait for the disk: what is lost is a note, and the live process knows
-- Twin:   tests/billing/test_settle_requests_sql.py
CREATE OR REPLACE FUNCTION billing_mark_requests(p_rows json, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM 1 FROM llm_request_log l WHERE l.id = ANY (p_ids) ORDER BY l.id FOR NO KEY UPDATE;
    UPDATE llm_request_log l
    SET state = 'streaming',
        first_byte_at = coalesce(l.first_byte_at, clock_timestamp()),
        checkpoint = greatest(l.checkpoint, r.checkpoint)
    FROM (
        SELECT m.id, max(m.checkpoint) AS checkpoint
        FROM json_to_recordset(p_rows) AS m (id uuid, checkpoint int) GROUP BY m.id
    ) AS r
    WHERE l.id = r.id AND l.state IN ('open', 'streaming');
END $$;
