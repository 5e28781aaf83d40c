"""Install the guard of the ledger's chain again: no plan of it reads more than the entry before."""

from importlib import resources

from django.db import migrations

GUARD = resources.files("billing").joinpath("sql/flux_transaction_follows.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_failed_requests_are_listed")]
    operations = [migrations.RunSQL(GUARD, migrations.RunSQL.noop)]
