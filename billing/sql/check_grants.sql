-- check_grants.sql: what operators gave and what the audit log says they gave (I17).
--
-- In:     user_id text or null: everybody; since timestamptz or null: posted or audited from then on
-- Out:    user_id, row, why; one row a disagreement
-- Rule:   a grant and an adjustment have an audit entry that names the entry, its account and what
--         it moved; such an audit entry has its entry. The opening grant is nobody's: it has none.
-- Locks:  none
-- Twin:   tests/billing/test_reconciliation.py
SELECT coalesce(t.user_id, a.user_id),
       CASE WHEN t.user_seq IS NULL THEN format('audit entry %%s', a.id)
            ELSE format('entry %%s', t.user_seq) END,
       CASE WHEN t.user_seq IS NULL THEN format('says %%s of entry %%s, which is not there',
                                                a.moved, coalesce(a.entry, 'none'))
            WHEN a.id IS NULL THEN format('moved %%s (%%s), but no audit entry says who and why',
                                          t.moved, t.type)
            ELSE format('moved %%s, but audit entry %%s says %%s', t.moved, a.id, a.moved) END
FROM (
    SELECT user_id, user_seq, type, id::text AS entry, (balance_after - balance_before)::text AS moved,
           CASE type WHEN 'promo' THEN 'billing.grant_flux' ELSE 'billing.adjust_flux' END AS action,
           created_at
    FROM flux_transaction
    WHERE type IN ('promo', 'admin_set')
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
) AS t
FULL JOIN (
    SELECT id, subject_id AS user_id, action, at, facts->>'entry' AS entry,
           coalesce(facts->>'change', facts->>'amount') AS moved
    FROM audit_entry
    WHERE action IN ('billing.grant_flux', 'billing.adjust_flux')
      AND subject_kind = 'billing.fluxaccount'
      AND (%(user_id)s::text IS NULL OR subject_id = %(user_id)s::text)
) AS a ON a.user_id = t.user_id AND a.action = t.action AND a.entry = t.entry
WHERE t.moved IS DISTINCT FROM a.moved
  AND (%(since)s::timestamptz IS NULL OR coalesce(t.created_at, a.at) >= %(since)s::timestamptz)
