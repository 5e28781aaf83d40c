"""Install the function that sends again: whoever sends something is not silent any more."""

from importlib import resources

from django.db import migrations

SEND = resources.files("chats").joinpath("sql/send_messages.sql").read_text()
# The column goes with the migration before this: what sends then must not name it.
IS_HEARD = """
            UPDATE chat_member m SET is_silent = false
            WHERE m.chat_id = c.chat_id AND m.user_id = c.user_id AND m.is_silent;"""
SEND_REVERSE = SEND.replace(IS_HEARD, "")


class Migration(migrations.Migration):
    dependencies = [("chats", "0008_silent_members")]
    operations = [migrations.RunSQL(SEND, SEND_REVERSE)]
