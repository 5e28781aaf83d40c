"""Install the functions of the hot path again: each table is written once for a whole batch."""

from importlib import resources

from django.db import migrations

NAMES = ("open_requests", "settle_requests")


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_reconciliation_runs")]
    operations = [
        migrations.RunSQL([statement(name) for name in NAMES], migrations.RunSQL.noop),
    ]
