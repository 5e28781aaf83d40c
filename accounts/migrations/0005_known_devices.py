"""A column for when the devices of a user were last made unknown."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_cheap_sightings")]
    operations = [
        migrations.AddField(
            model_name="user",
            name="devices_reset_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
