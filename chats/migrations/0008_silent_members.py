"""A column for members whom others have put in and who have sent nothing since.

Whoever is in a chat already counts as somebody who has.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chats", "0007_leavers")]
    operations = [
        migrations.AddField(
            model_name="chatmember",
            name="is_silent",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
