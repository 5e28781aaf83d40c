-- open_account.sql: create an account with its opening entry, once.
--
-- In:     user_id text; flux bigint >= 0, the opening grant
-- Out:    one row (user_id) if this call opened the account, none if it existed
-- Rule:   the opening grant is an entry, also when it is 0 (invariant I1)
-- Locks:  the new row; a second caller waits on its key and then inserts nothing
-- Races:  any number of first reads at once leave one account and one entry
-- Twin:   tests/billing/test_ledger.py
WITH opened AS (
    INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)
    VALUES (%(user_id)s, %(flux)s, 0, 1, false, clock_timestamp())
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, flux
)
INSERT INTO flux_transaction
    (user_id, user_seq, type, amount, balance_before, balance_after, description, created_at)
SELECT user_id, 1, 'initial', flux, 0, flux, 'Initial grant', clock_timestamp() FROM opened
RETURNING user_id
