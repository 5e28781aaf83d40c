"""A permission for each action of the operators, and lists that open at once."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q

NEWEST = ["-created_at", "id"]
USER_INDEXES = [
    Index(name="user_newest", fields=NEWEST),
    Index(name="user_by_verified", fields=["email_verified", *NEWEST]),
    Index(name="user_banned", fields=NEWEST, condition=Q(banned=True)),
    Index(name="user_staff", fields=NEWEST, condition=Q(is_staff=True)),
    Index(name="user_inactive", fields=NEWEST, condition=Q(is_active=False)),
]
KEY_INDEX = Index(name="api_key_begins", fields=["public_id"], opclasses=["varchar_pattern_ops"])


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("accounts", "0002_cheap_touches_and_lookups")]
    operations = [
        migrations.AlterModelOptions(
            name="user",
            options={
                "permissions": [
                    ("ban_user", "Can ban users"),
                    ("unban_user", "Can end bans"),
                    ("verify_user", "Can verify addresses"),
                    ("set_user_password", "Can set passwords"),
                ],
            },
        ),
        *(AddIndexConcurrently(model_name="user", index=index) for index in USER_INDEXES),
        AddIndexConcurrently(model_name="apikey", index=KEY_INDEX),
    ]
