"""Guard what CHECKs cannot see: the chain of a ledger, closed requests, rows that are gone.

Every trigger that guards something fires always, also for a session that calls itself a replica.
"""

from importlib import resources

from django.db import migrations

FILES = ("flux_transaction_follows", "requests_and_accounts_stay")
BACKWARD = """
DROP TRIGGER flux_transaction_follows ON flux_transaction;
DROP TRIGGER llm_request_log_closed ON llm_request_log;
DROP TRIGGER llm_request_log_stays ON llm_request_log;
DROP TRIGGER user_flux_stays ON user_flux;
DROP FUNCTION flux_transaction_follows();
DROP FUNCTION llm_request_log_closed();
DROP FUNCTION billing_rows_stay();
"""
ALWAYS = """
ALTER TABLE flux_transaction ENABLE {} TRIGGER flux_transaction_append_only;
ALTER TABLE price_version ENABLE {} TRIGGER price_version_append_only;
ALTER TABLE reconciliation_run ENABLE {} TRIGGER reconciliation_run_append_only;
"""


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_also_on_what_is_there")]
    operations = [
        migrations.RunSQL([statement(name) for name in FILES], BACKWARD),
        migrations.RunSQL(ALWAYS.replace("{}", "ALWAYS"), ALWAYS.replace("{}", "")),
    ]
