"""A message keeps hashes of what it said before its edits, and sends leave late retries alone."""

from importlib import resources

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import CheckConstraint, Func, Value
from django.db.models.lookups import LessThanOrEqual

SEND = resources.files("chats").joinpath("sql/send_messages.sql").read_text()
# The column goes after this: what sends then must not name it.
SEND_REVERSE = SEND.replace("x.superseded,", "NULL::bytea[] AS superseded,").replace(
    """,
                superseded = v_past[cardinality(v_past) - 31:]""",
    "",
)
CARDINALITY = Func("superseded", function="cardinality", output_field=models.IntegerField())


class Migration(migrations.Migration):
    dependencies = [("chats", "0011_positions_not_negative")]
    operations = [
        migrations.AddField(
            model_name="chatmessage",
            name="superseded",
            field=ArrayField(base_field=models.BinaryField(), null=True),
        ),
        AddConstraintNotValid(
            "chatmessage",
            CheckConstraint(
                name="chat_message_superseded_bounded",
                condition=LessThanOrEqual(CARDINALITY, Value(32)),
            ),
        ),
        migrations.RunSQL(SEND, SEND_REVERSE),
    ]
