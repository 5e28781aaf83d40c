"""A table that counts whom people put into chats, and how often strangers put somebody in."""

from django.db import migrations, models
from django.db.models import CheckConstraint, Q, UniqueConstraint

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
KINDS = [
    ("by_them", "Whom they put in"),
    ("by_strangers", "How often strangers put them in"),
]


class Migration(migrations.Migration):
    dependencies = [("chats", "0009_senders_are_not_silent")]
    operations = [
        migrations.CreateModel(
            name="ChatAddition",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.TextField(choices=KINDS)),
                ("user_id", models.TextField()),
                ("begins_at", models.DateTimeField()),
                ("people", models.BigIntegerField()),
            ],
            options={
                "db_table": "chat_addition",
                "default_permissions": (),
                "constraints": [
                    UniqueConstraint(name="chat_addition_once", fields=["user_id", "kind"]),
                    CheckConstraint(
                        name="chat_addition_kind_known",
                        condition=Q(kind__in=("by_them", "by_strangers")),
                    ),
                    CheckConstraint(
                        name="chat_addition_people_positive", condition=Q(people__gt=0)
                    ),
                    CheckConstraint(
                        name="chat_addition_user_id_shape", condition=Q(user_id__regex=ID_PATTERN)
                    ),
                ],
            },
        ),
    ]
