"""Remember when the books were checked and what was found; append-only, as the books are."""

from django.db import migrations, models

FORWARD = """
CREATE FUNCTION reconciliation_run_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'reconciliation_run is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER reconciliation_run_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON reconciliation_run
    FOR EACH STATEMENT EXECUTE FUNCTION reconciliation_run_append_only();
"""
BACKWARD = """
DROP TRIGGER reconciliation_run_append_only ON reconciliation_run;
DROP FUNCTION reconciliation_run_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_lists_of_the_console")]

    operations = [
        migrations.CreateModel(
            name="ReconciliationRun",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField()),
                ("by", models.CharField(max_length=254)),
                ("scope", models.CharField(blank=True, max_length=200)),
                ("duration_ms", models.IntegerField()),
                ("broken", models.IntegerField(help_text="Rows that break an invariant.")),
                ("orphans", models.IntegerField(help_text="Open requests nobody will end.")),
            ],
            options={
                "verbose_name": "check of the books",
                "verbose_name_plural": "checks of the books",
                "db_table": "reconciliation_run",
                "permissions": [("reconcile_books", "Can check the books")],
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("broken__gte", 0), ("duration_ms__gte", 0), ("orphans__gte", 0)
                        ),
                        name="reconciliation_run_counts_not_negative",
                    )
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
