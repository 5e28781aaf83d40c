"""Make the ledger and the price book append-only in the database, where nobody can argue."""

from importlib import resources

from django.db import migrations

FORWARD = resources.files("billing").joinpath("sql/flux_transaction_append_only.sql").read_text()
REVERSE = """
DROP TRIGGER flux_transaction_append_only ON flux_transaction;
DROP TRIGGER price_version_append_only ON price_version;
DROP FUNCTION billing_is_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_accounts_ledger_and_requests")]
    operations = [migrations.RunSQL(FORWARD, REVERSE)]
