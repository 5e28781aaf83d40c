-- read_role_privileges.sql: what a role may do with each table.
--
-- In:     role text
-- Out:    table, its privileges in the order of their names; a table without any has none
-- Locks:  none
-- Twin:   tests/airi_server/test_roles.py
SELECT
    c.relname,
    array(
        SELECT p.name
        FROM unnest(array[
            'DELETE', 'INSERT', 'REFERENCES', 'SELECT', 'TRIGGER', 'TRUNCATE', 'UPDATE'
        ]) AS p (name)
        WHERE has_table_privilege(%(role)s, c.oid, p.name)
        ORDER BY p.name
    )
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'f')
    AND NOT c.relispartition
ORDER BY c.relname
