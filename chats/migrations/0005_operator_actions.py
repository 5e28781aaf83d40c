"""A permission for each action of the operators, and lists that open at once.

No index has a column that a send changes, so its updates of the chat's row stay on their page.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models import F, Index, Q
from django.db.models.functions import Lower

NEWEST = ["-created_at", "-id"]
INDEXES = [
    ("chat", Index(name="chat_newest", fields=NEWEST)),
    (
        "chatmember",
        Index(
            name="chat_member_newest_of_user",
            fields=["user_id", "-joined_at", "-chat"],
            condition=Q(user_id__isnull=False),
        ),
    ),
    ("character", Index(name="character_newest", fields=NEWEST)),
    ("character", Index(name="character_newest_of_owner", fields=["owner_id", *NEWEST])),
    ("translation", Index(Lower("name"), F("created_at").desc(), name="character_i18n_named")),
]


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chats", "0004_counters_of_characters")]
    operations = [
        migrations.AlterModelOptions(
            name="chat",
            options={
                "permissions": [
                    ("read_messages", "Can read what is said in chats"),
                    ("export_chats", "Can export chats and characters, without what is said"),
                ]
            },
        ),
        *(AddIndexConcurrently(model_name=model, index=index) for model, index in INDEXES),
    ]
