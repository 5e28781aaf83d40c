-- flux_transaction_follows.sql: an entry begins where the one before it ended.
--
-- In:     any INSERT, by any client
-- Out:    SQLSTATE 23514 (check_violation), naming `flux_transaction_follows`
-- Rule:   balance_before = balance_after of user_seq - 1, which is there; 0 for the first. With the
--         rows' own sums and an append-only table, that makes every ledger a chain (I2).
-- Locks:  none: whoever posts holds the account's
-- Work:   once for a statement and not for a row: a batch of sixteen is one look at the index.
--         A session keeps the plan it made first, perhaps while the ledger was empty and any way
--         through it cost the same. So only one way is left: "the entry before", in the order of
--         the ledger, which nothing but its index has without sorting.
-- Twin:   tests/billing/test_guards.py
CREATE OR REPLACE FUNCTION flux_transaction_follows() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    stray record;
BEGIN
    SELECT n.user_id, n.user_seq INTO stray
    FROM entered n
    LEFT JOIN LATERAL (
        SELECT t.user_seq, t.balance_after
        FROM flux_transaction t
        WHERE t.user_id = n.user_id AND t.user_seq < n.user_seq
        ORDER BY t.user_seq DESC
        LIMIT 1
    ) t ON t.user_seq = n.user_seq - 1
    WHERE n.balance_before IS DISTINCT FROM CASE WHEN n.user_seq = 1 THEN 0 ELSE t.balance_after END
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entry % of % does not begin where the one before it ended',
            stray.user_seq, stray.user_id
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME,
                  CONSTRAINT = 'flux_transaction_follows';
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER flux_transaction_follows
    AFTER INSERT ON flux_transaction REFERENCING NEW TABLE AS entered
    FOR EACH STATEMENT EXECUTE FUNCTION flux_transaction_follows();
ALTER TABLE flux_transaction ENABLE ALWAYS TRIGGER flux_transaction_follows;
