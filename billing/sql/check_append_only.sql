-- check_append_only.sql: triggers that should refuse to rewrite history, and do not (I3).
--
-- In:     triggers text[]: their names; user_id and since: not used
-- Out:    user_id (empty), row, why; one row a missing trigger
-- Rule:   a trigger is there and fires for ordinary sessions
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT '', format('trigger %%s', wanted.name), 'is missing or switched off'
FROM unnest(%(triggers)s::text[]) AS wanted (name)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgname = wanted.name AND t.tgenabled IN ('O', 'A')
)
