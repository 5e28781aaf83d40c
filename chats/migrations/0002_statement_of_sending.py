"""Install the function that sends, and drop the indexes that no query can use."""

from importlib import resources

from django.db import migrations

SEND = resources.files("chats").joinpath("sql/send_messages.sql").read_text()
SEND_REVERSE = "DROP FUNCTION chats_send_messages(json, text[])"

# Django adds them to every text primary key, for LIKE; ids are only looked up whole.
DROP_LIKE = """
DROP INDEX chat_id_1c8253d1_like;
DROP INDEX chat_member_id_d919c6cf_like;
DROP INDEX chat_message_id_23769959_like;
"""
DROP_LIKE_REVERSE = """
CREATE INDEX chat_id_1c8253d1_like ON chat (id text_pattern_ops);
CREATE INDEX chat_member_id_d919c6cf_like ON chat_member (id text_pattern_ops);
CREATE INDEX chat_message_id_23769959_like ON chat_message (id text_pattern_ops);
"""

# A chat's row is updated by every send: room on the page keeps that out of the indexes.
STORAGE = """
ALTER TABLE chat SET (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
"""
STORAGE_REVERSE = """
ALTER TABLE chat RESET (
    fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
"""


class Migration(migrations.Migration):
    dependencies = [("chats", "0001_chats_members_and_messages")]
    operations = [
        migrations.RunSQL(SEND, SEND_REVERSE),
        migrations.RunSQL(DROP_LIKE, DROP_LIKE_REVERSE),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
