"""Write the rows of the grants there were before: who and why stand in their entries.

What was pasted then was never kept, so these people have no address.
"""

from importlib import resources

from django.db import migrations


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("billing", "0015_grants_are_rows")]
    operations = [migrations.RunSQL([statement("name_grants")], migrations.RunSQL.noop)]
