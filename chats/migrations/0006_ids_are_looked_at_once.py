"""Install the function that sends again: it looks at the ids of a call once."""

from importlib import resources

from django.db import migrations

SEND = resources.files("chats").joinpath("sql/send_messages.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("chats", "0005_operator_actions")]
    operations = [migrations.RunSQL(SEND, migrations.RunSQL.noop)]
