"""The database is held to what migrations make, by table and definition: a name proves nothing."""

from __future__ import annotations

import pytest
from django.db import connection

from airi_server.kernel import resources
from airi_server.runtime import schema

FOLLOWS = """
CREATE OR REPLACE FUNCTION flux_transaction_follows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$
"""
LENIENT = """
CREATE OR REPLACE FUNCTION billing_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END $$
"""
CHANGES = {
    # what a hand does: (statements, what is named, what is said of it)
    "a trigger dropped": (
        ["DROP TRIGGER user_flux_stays ON user_flux"],
        "trigger user_flux_stays of user_flux",
        "is missing",
    ),
    "a trigger switched off": (
        ["ALTER TABLE llm_request_log DISABLE TRIGGER llm_request_log_closed"],
        "trigger llm_request_log_closed of llm_request_log",
        "is switched off",
    ),
    "all triggers switched off": (
        ["ALTER TABLE router_revision DISABLE TRIGGER USER"],
        "trigger router_revision_append_only of router_revision",
        "is switched off",
    ),
    "a trigger that replicas pass": (
        ["ALTER TABLE audit_entry ENABLE TRIGGER audit_entry_append_only"],
        "trigger audit_entry_append_only of audit_entry",
        "does not fire always",
    ),
    "a trigger for replicas only": (
        ["ALTER TABLE price_version ENABLE REPLICA TRIGGER price_version_append_only"],
        "trigger price_version_append_only of price_version",
        "fires for replicas only",
    ),
    "a trigger that runs something else": (
        [FOLLOWS],
        "trigger flux_transaction_follows of flux_transaction",
        "runs something else",
    ),
    "a trigger that runs with settings of its own": (
        ["ALTER FUNCTION llm_request_log_closed() SET client_min_messages = error"],
        "trigger llm_request_log_closed of llm_request_log",
        "runs something else",
    ),
    "a trigger that fires for less": (
        [
            "DROP TRIGGER user_flux_stays ON user_flux",
            (
                "CREATE TRIGGER user_flux_stays BEFORE TRUNCATE ON user_flux"
                " EXECUTE FUNCTION billing_rows_stay()"
            ),
            "ALTER TABLE user_flux ENABLE ALWAYS TRIGGER user_flux_stays",
        ],
        "trigger user_flux_stays of user_flux",
        "says something else: CREATE TRIGGER user_flux_stays BEFORE TRUNCATE ON user_flux",
    ),
    "a trigger on another table": (
        [
            "DROP TRIGGER user_flux_stays ON user_flux",
            (
                "CREATE TRIGGER user_flux_stays BEFORE DELETE OR TRUNCATE ON api_key_spend"
                " EXECUTE FUNCTION billing_rows_stay()"
            ),
        ],
        "trigger user_flux_stays of user_flux",
        "is missing",
    ),
    "a trigger of nobody's": (
        [
            (
                "CREATE TRIGGER quietly BEFORE UPDATE ON user_flux FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
        ],
        "trigger quietly of user_flux",
        "is not ours",
    ),
    "a rule of nobody's": (
        ["CREATE RULE quietly AS ON INSERT TO audit_entry DO INSTEAD NOTHING"],
        "rule quietly of audit_entry",
        "is not ours",
    ),
    "a check dropped": (
        ["ALTER TABLE user_flux DROP CONSTRAINT user_flux_balance_not_negative"],
        "constraint user_flux_balance_not_negative of user_flux",
        "is missing",
    ),
    "a check on another table": (
        [
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_balance_not_negative",
            (
                "ALTER TABLE api_key_spend"
                " ADD CONSTRAINT user_flux_balance_not_negative CHECK (flux >= 0)"
            ),
        ],
        "constraint user_flux_balance_not_negative of user_flux",
        "is missing",
    ),
    "a check that nobody looked at": (
        [
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_balance_not_negative",
            (
                "ALTER TABLE user_flux"
                " ADD CONSTRAINT user_flux_balance_not_negative CHECK (flux >= 0) NOT VALID"
            ),
        ],
        "constraint user_flux_balance_not_negative of user_flux",
        "is not valid",
    ),
    "a weaker check": (
        [
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_balance_not_negative",
            (
                "ALTER TABLE user_flux ADD CONSTRAINT user_flux_balance_not_negative"
                " CHECK (flux >= -1000)"
            ),
        ],
        "constraint user_flux_balance_not_negative of user_flux",
        "says something else: CHECK (flux >= '-1000'::integer)",
    ),
    "a foreign key switched off": (
        ['ALTER TABLE "user" DISABLE TRIGGER ALL'],
        "constraint api_key_user_id_2b8305f7_fk_user_id of api_key",
        "is switched off",
    ),
    "an empty column": (
        ["ALTER TABLE llm_request_log ALTER hold DROP NOT NULL"],
        "column hold of llm_request_log",
        "is missing",
    ),
    "an index dropped": (
        ["DROP INDEX flux_transaction_reversed_once"],
        "index flux_transaction_reversed_once of flux_transaction",
        "is missing",
    ),
    "an index that lets twins in": (
        [
            "DROP INDEX flux_transaction_reversed_once",
            (
                "CREATE INDEX flux_transaction_reversed_once"
                " ON flux_transaction (user_id, reverses_seq) WHERE reverses_seq IS NOT NULL"
            ),
        ],
        "index flux_transaction_reversed_once of flux_transaction",
        "says something else: CREATE INDEX",
    ),
    "an index on another table": (
        [
            "DROP INDEX user_flux_frozen",
            "CREATE INDEX user_flux_frozen ON llm_request_log (user_id)",
        ],
        "index user_flux_frozen of user_flux",
        "is missing",
    ),
    "an index that was never finished": (
        [
            "SET LOCAL allow_system_table_mods = on",
            (
                "UPDATE pg_index SET indisvalid = false"
                " WHERE indexrelid = 'llm_request_log_open'::regclass"
            ),
        ],
        "index llm_request_log_open of llm_request_log",
        "is not valid",
    ),
}


def said() -> dict[str, str]:
    return {str(place): why for place, why in schema.drift()}


@pytest.mark.django_db
class TestDrift:
    def test_is_none_after_the_migrations(self):
        assert said() == {}

    @pytest.mark.parametrize("what", CHANGES)
    def test_is_named_with_its_table_and_how(self, what):
        statements, place, why = CHANGES[what]

        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

        assert said()[place].startswith(why)

    def test_one_function_is_behind_every_trigger_that_runs_it(self):
        with connection.cursor() as cursor:
            cursor.execute(LENIENT)

        assert said() == {
            f"trigger {table}_append_only of {table}": "runs something else"
            for table in ("flux_grant", "flux_grant_person", "flux_transaction", "price_version")
        }

    def test_more_indexes_and_constraints_are_nobodys_business(self):
        with connection.cursor() as cursor:
            cursor.execute("CREATE INDEX for_a_report ON flux_transaction (created_at)")
            cursor.execute("ALTER TABLE user_flux ADD CONSTRAINT few CHECK (flux < 1000000000000)")

        assert said() == {}


@pytest.mark.django_db
def test_the_file_is_what_migrations_make():
    found = resources.read_text("airi_server.runtime", schema.FILE)

    assert schema.document() == found, "run: ./run manage migrate, then export-schema"
