"""The audit log's trigger fires always, also for a session that calls itself a replica."""

from django.db import migrations

FORWARD = "ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_append_only"
BACKWARD = "ALTER TABLE audit_entry ENABLE TRIGGER audit_entry_append_only"


class Migration(migrations.Migration):
    dependencies = [("runtime", "0003_audit_log_append_only")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
