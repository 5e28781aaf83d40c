"""The trigger of the revisions fires always, also for a session that calls itself a replica."""

from django.db import migrations

FORWARD = "ALTER TABLE router_revision ENABLE ALWAYS TRIGGER router_revision_append_only"
BACKWARD = "ALTER TABLE router_revision ENABLE TRIGGER router_revision_append_only"


class Migration(migrations.Migration):
    dependencies = [("llmrouter", "0003_probe_upstream")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
