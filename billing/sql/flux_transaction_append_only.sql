-- flux_transaction_append_only.sql: the ledger and the price book refuse to be rewritten.
--
-- In:     any UPDATE, DELETE or TRUNCATE, by any client
-- Out:    SQLSTATE 23001 (restrict_violation)
-- Rule:   a correction is a new entry that names the old one; a new price is a new version
-- Twin:   tests/billing/test_constraints.py
CREATE FUNCTION billing_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER flux_transaction_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON flux_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_append_only();
CREATE TRIGGER price_version_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON price_version
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_append_only();
