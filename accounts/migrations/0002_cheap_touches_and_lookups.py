"""Leave room for `last_used_at` beside each key, and drop an index that no query can use."""

from django.db import migrations

# Touching a key then stays on its page and out of its indexes.
STORAGE = "ALTER TABLE api_key SET (fillfactor = 80)"
STORAGE_REVERSE = "ALTER TABLE api_key RESET (fillfactor)"

# Django adds it to every text primary key, for LIKE; ids are only looked up whole.
DROP_LIKE = "DROP INDEX user_id_ea8f538c_like"
DROP_LIKE_REVERSE = 'CREATE INDEX user_id_ea8f538c_like ON "user" (id text_pattern_ops)'


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_users_and_api_keys")]
    operations = [
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(DROP_LIKE, DROP_LIKE_REVERSE),
    ]
