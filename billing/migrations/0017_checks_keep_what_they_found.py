"""A check of the books keeps what it found: its page has an address."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0016_earlier_grants_are_rows"),
    ]

    operations = [
        migrations.AddField(
            model_name="reconciliationrun",
            name="findings",
            field=models.JSONField(
                help_text="The first of both. NULL: a command said them.", null=True
            ),
        ),
    ]
