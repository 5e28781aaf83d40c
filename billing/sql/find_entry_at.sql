-- find_entry_at.sql: where in the ledger an instant is, as an id.
--
-- In:     at timestamptz
-- Out:    one id, or null for an empty ledger: every entry with a smaller one is older
-- Rule:   there is no index on created_at, which would cost every settlement: the place is found
--         by halving the primary key. Ids follow created_at to within the length of a
--         transaction; whoever reads from here compares created_at as well.
-- Locks:  none
-- Twin:   tests/billing/test_books.py
WITH RECURSIVE halves AS (
    SELECT min(id) AS low, max(id) + 1 AS high FROM flux_transaction
    UNION ALL
    SELECT CASE WHEN middle.is_old THEN middle.id + 1 ELSE halves.low END,
           CASE WHEN middle.is_old THEN halves.high ELSE middle.id END
    FROM halves
    CROSS JOIN LATERAL (
        SELECT (halves.low + halves.high) / 2 AS id,
               (SELECT t.created_at < %(at)s::timestamptz FROM flux_transaction t
                WHERE t.id >= (halves.low + halves.high) / 2 ORDER BY t.id LIMIT 1) AS is_old
    ) AS middle
    WHERE halves.low < halves.high
)
SELECT max(low) FROM halves
