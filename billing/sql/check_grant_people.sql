-- check_grant_people.sql: what operators gave and whom the grants name (I17).
--
-- In:     user_id text or null: everybody; since timestamptz or null: posted from then on
-- Out:    user_id, row, why; one row a disagreement
-- Rule:   an entry of type promo has one person of a grant that names it, with its user and amount;
--         a person who was granted something names such an entry.
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(t.user_id, p.user_id),
       CASE WHEN t.user_seq IS NULL THEN format('person %%s of grant %%s', p.id, p.grant_id)
            ELSE format('entry %%s', t.user_seq) END,
       CASE WHEN t.user_seq IS NULL THEN format('names entry %%s, which is no grant', p.entry_id)
            WHEN p.id IS NULL THEN format('moved %%s (promo), but no grant names it', t.amount)
            ELSE format('moved %%s, but grant %%s says %%s to %%s',
                        t.amount, p.grant_id, p.amount, p.user_id) END
FROM (
    SELECT id, user_id, user_seq, amount, created_at FROM flux_transaction
    WHERE type = 'promo' AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
) AS t
FULL JOIN (
    SELECT id, grant_id, user_id, amount, entry_id, at FROM flux_grant_person
    WHERE result = 'granted' AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
) AS p ON p.entry_id = t.id
WHERE (t.user_id, t.amount) IS DISTINCT FROM (p.user_id, p.amount)
  AND (%(since)s::timestamptz IS NULL OR coalesce(t.created_at, p.at) >= %(since)s::timestamptz)
