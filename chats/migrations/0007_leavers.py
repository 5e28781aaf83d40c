"""A table of who has left which chat by themselves, and the trigger that keeps them out."""

from importlib import resources

from django.db import migrations, models
from django.db.models.functions import Now

KEEP_OUT = resources.files("chats").joinpath("sql/keep_leavers_out.sql").read_text()
KEEP_OUT_REVERSE = """
DROP TRIGGER chat_member_has_not_left ON chat_member;
DROP FUNCTION chats_keep_leavers_out();
"""
ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


class Migration(migrations.Migration):
    dependencies = [("chats", "0006_ids_are_looked_at_once")]
    operations = [
        migrations.CreateModel(
            name="ChatLeaver",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("user_id", models.TextField()),
                ("left_at", models.DateTimeField(db_default=Now())),
                (
                    "chat",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="leavers",
                        to="chats.chat",
                    ),
                ),
            ],
            options={
                "db_table": "chat_leaver",
                "default_permissions": (),
                "indexes": [models.Index(name="chat_leaver_of_user", fields=["user_id", "chat"])],
                "constraints": [
                    models.UniqueConstraint(name="chat_leaver_once", fields=["chat", "user_id"]),
                    models.CheckConstraint(
                        name="chat_leaver_user_id_shape",
                        condition=models.Q(user_id__regex=ID_PATTERN),
                    ),
                ],
            },
        ),
        migrations.RunSQL(KEEP_OUT, KEEP_OUT_REVERSE),
    ]
