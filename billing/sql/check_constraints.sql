-- check_constraints.sql: constraints the money rests on that the database no longer has (I5).
--
-- In:     constraints text[]: checks and unique indexes by name; user_id and since: not used
-- Out:    user_id (empty), row, why; one row a missing constraint
-- Rule:   a check is there and validated, a unique index is there and valid
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT '', format('constraint %%s', wanted.name), 'is missing or not valid'
FROM unnest(%(constraints)s::text[]) AS wanted (name)
WHERE NOT EXISTS (
    SELECT FROM pg_constraint c WHERE c.conname = wanted.name AND c.convalidated
) AND NOT EXISTS (
    SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = wanted.name AND i.indisunique AND i.indisvalid
)
