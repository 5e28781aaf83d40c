"""Install the functions of the hot path, and leave room on the pages they update."""

from importlib import resources

from django.db import migrations

NAMES = ("open_requests", "mark_requests", "settle_requests")
REVERSE = """
DROP FUNCTION billing_open_requests(json, text[]);
DROP FUNCTION billing_mark_requests(json, uuid[]);
DROP FUNCTION billing_settle_requests(json, uuid[], text[]);
"""
# Accounts are updated twice for each request and requests once or twice: room on the page keeps
# those updates out of the indexes, and early vacuums keep the pages small.
STORAGE = """
ALTER TABLE user_flux SET (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE llm_request_log SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE api_key_spend SET (fillfactor = 70);
"""
STORAGE_REVERSE = """
ALTER TABLE user_flux RESET (
    fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE llm_request_log RESET (fillfactor, autovacuum_vacuum_scale_factor);
ALTER TABLE api_key_spend RESET (fillfactor);
"""


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_ledger_and_prices_are_append_only")]
    operations = [
        migrations.RunSQL([statement(name) for name in NAMES], REVERSE),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
