"""What operators change and do says by whom, and what it is about."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import CheckConstraint, Func, Q
from django.db.models.lookups import Exact

FACTS = Exact(Func("facts", function="jsonb_typeof", output_field=models.TextField()), "object")


class Migration(migrations.Migration):
    dependencies = [("runtime", "0004_always_append_only")]
    operations = [
        AddConstraintNotValid(
            "auditentry",
            CheckConstraint(name="audit_entry_has_a_subject", condition=~Q(subject_kind="")),
        ),
        AddConstraintNotValid(
            "auditentry", CheckConstraint(name="audit_entry_facts_are_an_object", condition=FACTS)
        ),
        migrations.AddConstraint(
            "optionrevision",
            CheckConstraint(name="config_kv_has_an_author", condition=~Q(changed_by="")),
        ),
        migrations.AddConstraint(
            "publishedversion",
            CheckConstraint(name="published_version_has_a_name", condition=~Q(name="")),
        ),
    ]
