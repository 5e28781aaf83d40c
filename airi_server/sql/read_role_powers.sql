-- read_role_powers.sql: what a role may do beyond rows of tables, and a serving role may not.
--
-- In:     role text
-- Out:    one row a power, in words; of a superuser that it is one, and nothing else
-- Locks:  none
-- Rule:   what PUBLIC and the roles it is a member of may counts as its own
-- Twin:   tests/airi_server/test_roles.py
WITH role AS (SELECT oid, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = %(role)s)
SELECT 'is a superuser' FROM role WHERE rolsuper
UNION ALL
SELECT power.name
FROM role, LATERAL (
    SELECT 'may make roles' WHERE role.rolcreaterole
    UNION ALL
    SELECT 'owns the database'
    FROM pg_database d
    WHERE d.datname = current_database() AND pg_has_role(role.oid, d.datdba, 'MEMBER')
    UNION ALL
    SELECT format('owns tables: %%s', string_agg(c.relname, ', ' ORDER BY c.relname))
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND pg_has_role(role.oid, c.relowner, 'MEMBER')
    HAVING count(*) > 0
    UNION ALL
    SELECT format('owns functions: %%s', string_agg(p.proname, ', ' ORDER BY p.proname))
    FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace
        AND pg_has_role(role.oid, p.proowner, 'MEMBER')
    HAVING count(*) > 0
    UNION ALL
    SELECT format('may create in the schema %%s', current_schema())
    WHERE has_schema_privilege(role.oid, current_schema()::regnamespace, 'CREATE')
    UNION ALL
    SELECT 'may create schemas'
    WHERE has_database_privilege(role.oid, current_database(), 'CREATE')
    UNION ALL
    SELECT 'may make temporary tables, which hide ours'
    WHERE has_database_privilege(role.oid, current_database(), 'TEMPORARY')
    UNION ALL
    SELECT 'may set session_replication_role, which silences triggers'
    WHERE has_parameter_privilege(role.oid, 'session_replication_role', 'SET')
    UNION ALL
    SELECT format('is a member of %%s', m.rolname)
    FROM pg_roles m
    WHERE m.rolname IN (
        'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
        'pg_write_all_data'
    ) AND pg_has_role(role.oid, m.oid, 'MEMBER')
) AS power (name)
WHERE NOT role.rolsuper
