-- roles.sql: the roles of `./run` beside the superuser, in the database that they work on.
--
-- In:     {owner} and {serving}, names; {owner_password} and {serving_password}
-- Out:    nothing; whatever the superuser had in the schema belongs to the owner
-- Locks:  each table, while nobody else is connected
-- Rule:   may run again, because the last attempt may have been cut short
-- Twin:   tests/launch/test_postgres_roles.py
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{owner}') THEN
        CREATE ROLE {owner};
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{serving}') THEN
        CREATE ROLE {serving};
    END IF;
END $$;

ALTER ROLE {owner} LOGIN CREATEDB PASSWORD '{owner_password}';

ALTER ROLE {serving} LOGIN PASSWORD '{serving_password}';

-- The owner is also the hand of whoever works with SQL, and ends and looks into sessions.
GRANT pg_monitor, pg_signal_backend TO {owner};

GRANT SET ON PARAMETER session_replication_role TO {owner};

ALTER DATABASE {database} OWNER TO {owner};

-- REASSIGN OWNED takes nothing from the superuser that PostgreSQL itself belongs to.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER TABLE %s OWNER TO {owner}', c.oid::regclass)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO {owner}', p.oid::regprocedure)
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e'
        )
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

