"""Look at the audit entries that were there before their CHECKs. Locks nobody out."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("runtime", "0005_who_and_what_are_said")]
    operations = [
        ValidateConstraint("auditentry", "audit_entry_has_a_subject"),
        ValidateConstraint("auditentry", "audit_entry_facts_are_an_object"),
    ]
