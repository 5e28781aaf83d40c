-- name_grants.sql: write the rows of grants whose entries are there and whose rows are not.
--
-- In:     entries of type promo that no flux_grant_person names
-- Out:    a flux_grant by key, or one for each entry without a key; a flux_grant_person an entry
-- Rule:   who and why stand in the entry's metadata; what was pasted then is not known: NULL.
--         Again, it does nothing.
-- Twin:   tests/billing/test_grant_rows.py
DO $$
DECLARE
    t record;
    named bigint;
BEGIN
    FOR t IN
        SELECT f.id, f.user_id, f.amount, f.description, f.created_at,
               coalesce(nullif(f.metadata->>'issuedByUserId', ''), 'unknown') AS granted_by,
               CASE WHEN f.request_id LIKE 'flux-grant:%' THEN f.metadata->>'idempotencyKey' END AS key
        FROM flux_transaction f
        WHERE f.type = 'promo' AND NOT EXISTS (SELECT FROM flux_grant_person p WHERE p.entry_id = f.id)
        ORDER BY f.id
    LOOP
        SELECT g.id INTO named FROM flux_grant g WHERE g.key = t.key;
        IF named IS NULL THEN
            INSERT INTO flux_grant (key, description, amount, granted_by, granted_at)
            VALUES (t.key, t.description, t.amount, t.granted_by, t.created_at)
            RETURNING id INTO named;
        END IF;
        INSERT INTO flux_grant_person (grant_id, position, user_id, amount, result, error, entry_id, at)
        VALUES (named, 0, t.user_id, t.amount, 'granted', '', t.id, t.created_at);
    END LOOP;
END $$;
