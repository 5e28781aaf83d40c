"""Leave room for `last_seen_at` beside each user: touching it stays on its page."""

from django.db import migrations

STORAGE = 'ALTER TABLE "user" SET (fillfactor = 90)'
STORAGE_REVERSE = 'ALTER TABLE "user" RESET (fillfactor)'


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_operator_actions")]
    operations = [migrations.RunSQL(STORAGE, STORAGE_REVERSE)]
