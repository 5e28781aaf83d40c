-- find_entry_of_user_at.sql: where in one ledger an instant is, as a sequence number.
--
-- In:     user_id text; at timestamptz
-- Out:    one user_seq, or null for an empty ledger: every entry with a smaller one is older
-- Rule:   there is no index on created_at, which would cost every settlement: the place is found
--         by halving the sequence. It follows created_at to within the length of a
--         transaction; whoever reads from here compares created_at as well.
-- Locks:  none
-- Twin:   tests/billing/test_books.py
WITH RECURSIVE halves AS (
    SELECT min(user_seq) AS low, max(user_seq) + 1 AS high
    FROM flux_transaction WHERE user_id = %(user_id)s
    UNION ALL
    SELECT CASE WHEN middle.is_old THEN middle.seq + 1 ELSE halves.low END,
           CASE WHEN middle.is_old THEN halves.high ELSE middle.seq END
    FROM halves
    CROSS JOIN LATERAL (
        SELECT (halves.low + halves.high) / 2 AS seq,
               (SELECT t.created_at < %(at)s::timestamptz FROM flux_transaction t
                WHERE t.user_id = %(user_id)s AND t.user_seq >= (halves.low + halves.high) / 2
                ORDER BY t.user_seq LIMIT 1) AS is_old
    ) AS middle
    WHERE halves.low < halves.high
)
SELECT max(low) FROM halves
