-- prune_results.sql: forget stored answers that no replay will ask for any more.
--
-- In:     page int: the most rows to delete
-- Out:    one row (request_id) a deleted answer
-- Rule:   an answer is kept for 24 hours on the database's clock
-- Locks:  the deleted rows; locked ones are left for the next run
-- Twin:   tests/billing/test_orphans.py
DELETE FROM llm_request_result WHERE request_id IN (
    SELECT request_id FROM llm_request_result
    WHERE created_at < clock_timestamp() - interval '24 hours'
    ORDER BY created_at LIMIT %(page)s FOR UPDATE SKIP LOCKED
)
RETURNING request_id
