-- grants_stay.sql: what a grant was and whom it was for stays; an address can be erased, nothing else.
--
-- In:     UPDATE, DELETE or TRUNCATE of either table, by any client
-- Out:    SQLSTATE 23001 (restrict_violation)
-- Rule:   a row is evidence. What a user's departure takes away is the address as it was pasted and
--         as it was read, both at once and for good.
-- Twin:   tests/billing/test_guards.py
CREATE FUNCTION flux_grant_person_keeps_its_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an address of a grant can be erased and not changed'
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
END $$;
CREATE TRIGGER flux_grant_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON flux_grant
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_append_only();
CREATE TRIGGER flux_grant_person_append_only
    BEFORE DELETE OR TRUNCATE OR UPDATE OF
        id, grant_id, position, user_id, amount, result, error, entry_id, at
    ON flux_grant_person
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_append_only();
CREATE TRIGGER flux_grant_person_keeps_its_address
    BEFORE UPDATE ON flux_grant_person
    FOR EACH ROW WHEN (NEW.pasted IS NOT NULL OR NEW.email IS NOT NULL)
    EXECUTE FUNCTION flux_grant_person_keeps_its_address();
ALTER TABLE flux_grant ENABLE ALWAYS TRIGGER flux_grant_append_only;
ALTER TABLE flux_grant_person ENABLE ALWAYS TRIGGER flux_grant_person_append_only;
ALTER TABLE flux_grant_person ENABLE ALWAYS TRIGGER flux_grant_person_keeps_its_address;
