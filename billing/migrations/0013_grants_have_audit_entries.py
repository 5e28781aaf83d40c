"""Write the audit entry of each grant that was made without one.

A grant from a shell, such as the one of the demo, left none. The log can only grow, so from here
on such a grant would break the books for good: what its entry says of it is said again there.
"""

from django.db import migrations

FORWARD = """
INSERT INTO audit_entry
    (at, actor_id, actor, action, subject_kind, subject_id, sentence, facts, request_id)
SELECT t.created_at, '', left(coalesce(nullif(t.metadata->>'issuedByUserId', ''), 'unknown'), 254),
       t.action, 'billing.fluxaccount', t.user_id,
       left(format('Moved %s Flux, as the ledger says: %s', t.moved, t.description), 1000),
       jsonb_build_object('entry', t.id, t.fact, t.moved), ''
FROM (
    SELECT *, balance_after - balance_before AS moved,
           CASE type WHEN 'promo' THEN 'amount' ELSE 'change' END AS fact,
           CASE type WHEN 'promo' THEN 'billing.grant_flux' ELSE 'billing.adjust_flux' END AS action
    FROM flux_transaction WHERE type IN ('promo', 'admin_set')
) AS t
WHERE NOT EXISTS (
    SELECT FROM audit_entry a
    WHERE a.subject_kind = 'billing.fluxaccount' AND a.subject_id = t.user_id
      AND a.action = t.action AND a.facts->>'entry' = t.id::text
)
ORDER BY t.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0012_statements_are_planned_once"),
        ("runtime", "0006_also_what_was_done_before"),
    ]
    operations = [migrations.RunSQL(FORWARD, migrations.RunSQL.noop)]
