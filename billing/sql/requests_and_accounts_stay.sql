-- requests_and_accounts_stay.sql: no request and no account is deleted, and no closed request moves.
--
-- In:     UPDATE of a closed request, or of what a request opened with, by any client
--         UPDATE of an account's user; DELETE and TRUNCATE of both tables
-- Out:    SQLSTATE 23001 (restrict_violation)
-- Rule:   a request is opened, marked and closed; then it is evidence. An account that its user
--         leaves gets a deleted_at. A correction is an entry of the ledger.
-- Work:   a row is looked at after it was updated, which spares settling a lock of each; all else
--         is decided once for a statement
-- Twin:   tests/billing/test_guards.py
CREATE OR REPLACE FUNCTION llm_request_log_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'request % is closed and stays as it is', OLD.id
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
END $$;
CREATE OR REPLACE FUNCTION billing_rows_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'rows of % stay whose and what they are', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
    END IF;
    RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
END $$;
CREATE TRIGGER llm_request_log_closed
    AFTER UPDATE ON llm_request_log
    FOR EACH ROW WHEN (OLD.settled_at IS NOT NULL) EXECUTE FUNCTION llm_request_log_closed();
CREATE TRIGGER llm_request_log_stays
    BEFORE DELETE OR TRUNCATE OR UPDATE OF
        id, user_id, api_key_id, kind, client_key, input_hash, hold, model, stream,
        prompt_estimate, price_version, instance_id, opened_at
    ON llm_request_log
    FOR EACH STATEMENT EXECUTE FUNCTION billing_rows_stay();
CREATE TRIGGER user_flux_stays
    BEFORE DELETE OR TRUNCATE OR UPDATE OF user_id ON user_flux
    FOR EACH STATEMENT EXECUTE FUNCTION billing_rows_stay();
ALTER TABLE llm_request_log ENABLE ALWAYS TRIGGER llm_request_log_closed;
ALTER TABLE llm_request_log ENABLE ALWAYS TRIGGER llm_request_log_stays;
ALTER TABLE user_flux ENABLE ALWAYS TRIGGER user_flux_stays;
