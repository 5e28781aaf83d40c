"""The role that serves: every table is decided on, and what is not granted is refused."""

from __future__ import annotations

import io

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, models

from airi_server import checks, roles
from airi_server.kernel import instance
from airi_server.runtime import instances
from billing import reconciliation
from tests import serving_role
from tests.factories import billing as make
from tests.lab.server import database_url

pytestmark = pytest.mark.django_db
ROLE = serving_role.ROLE
EVIDENCE = (
    "audit_entry", "flux_transaction", "price_version", "reconciliation_run", "router_revision",
)  # fmt: skip
KEPT = ("llm_request_log", "user_flux", "user", "chat", "api_key_spend", "config_kv")


@pytest.fixture
def session():
    """A session of the role, as the server has it; what it does is never committed."""
    with psycopg.connect(database_url(ROLE, serving_role.PASSWORD)) as session:
        yield session
        session.rollback()


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


class TestTable:
    def test_has_every_model_and_nothing_that_is_no_table(self):
        tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}

        assert tables | {"django_migrations"} == roles.PRIVILEGES.keys()

    def test_has_every_table_of_the_database(self):
        assert set(connection.introspection.table_names()) == roles.PRIVILEGES.keys()

    def test_is_what_the_role_has_and_nothing_else(self):
        assert roles.standing(ROLE) == roles.RoleDrift([], [])

    @pytest.mark.parametrize("table", EVIDENCE)
    def test_lets_nobody_rewrite_evidence(self, table):
        assert set(roles.PRIVILEGES[table]) == {"SELECT", "INSERT"}

    def test_grants_nothing_else_than_rows(self):
        granted = {each for privileges in roles.PRIVILEGES.values() for each in privileges}

        assert granted == {"SELECT", "INSERT", "UPDATE", "DELETE"}

    def test_needs_no_sequence(self):
        """An identity column numbers rows for whoever may insert; a serial one would not."""
        keys = [model._meta.pk for model in apps.get_models(include_auto_created=True)]

        assert any(isinstance(key, models.AutoField) for key in keys)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' "
                "AND column_default LIKE 'nextval%'"
            )
            assert cursor.fetchall() == []


def _statements() -> list[str]:
    rewritten = [
        statement.format(table, "number" if table == "router_revision" else "id")
        for table in EVIDENCE
        for statement in (
            "UPDATE {0} SET {1} = {1}",
            "DELETE FROM {0}",
            "TRUNCATE {0}",
            "ALTER TABLE {0} DISABLE TRIGGER ALL",
            "DROP TABLE {0}",
        )
    ]
    return [
        *rewritten,
        *(f'DELETE FROM "{table}"' for table in KEPT),
        *(f'TRUNCATE "{table}" CASCADE' for table in ("llm_request_log", "user", "django_session")),
        "SET session_replication_role = replica",
        "ALTER TABLE flux_transaction DISABLE TRIGGER flux_transaction_append_only",
        "DROP TRIGGER audit_entry_append_only ON audit_entry",
        "CREATE TRIGGER mine BEFORE INSERT ON chat EXECUTE FUNCTION billing_is_append_only()",
        "CREATE OR REPLACE FUNCTION billing_is_append_only() RETURNS trigger AS '' LANGUAGE sql",
        "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION billing_is_append_only() RENAME TO gone",
        "DROP FUNCTION billing_is_append_only() CASCADE",
        'ALTER TABLE "user" ADD COLUMN mine int',
        "ALTER TABLE user_flux DROP CONSTRAINT user_flux_pkey",
        "DROP INDEX audit_entry_of_actor",
        "CREATE INDEX mine ON chat (id)",
        "CREATE TABLE mine (id int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE TEMPORARY TABLE flux_transaction (id int)",
        "SELECT 1 AS one INTO TEMPORARY mine",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION citext",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "ALTER SYSTEM SET fsync = off",
        f"ALTER ROLE {ROLE} SUPERUSER",
        "SET ROLE postgres",
        "COPY chat TO PROGRAM 'true'",
        "COPY chat FROM PROGRAM 'true'",
        "COPY chat TO '/tmp/mine'",
        "SELECT pg_read_file('/etc/passwd')",
        "INSERT INTO django_migrations (app, name, applied) VALUES ('mine', '0001', now())",
        "INSERT INTO auth_permission (name, content_type_id, codename) VALUES ('a', 1, 'b')",
    ]


class TestRefused:
    @pytest.mark.parametrize("statement", _statements())
    def test_to_the_role(self, session, statement):
        if statement.startswith(("CREATE DATABASE", "ALTER SYSTEM")):
            session.autocommit = True

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(statement.encode())

    def test_granting_itself_more_grants_nothing(self, session):
        session.execute(f"GRANT DELETE ON audit_entry TO {ROLE}".encode())

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(b"DELETE FROM audit_entry")

    @pytest.mark.parametrize("table", EVIDENCE)
    def test_only_what_rewrites_for_rows_may_be_read(self, session, table):
        assert session.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() is not None


class TestGranting:
    def test_again_changes_nothing(self):
        roles.grant(ROLE)
        roles.grant(ROLE)

        assert roles.standing(ROLE) == roles.RoleDrift([], [])

    @pytest.mark.parametrize(
        "given",
        [
            f"GRANT DELETE, TRUNCATE ON audit_entry TO {ROLE}",
            f"GRANT UPDATE (amount) ON flux_transaction TO {ROLE}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}",
            f"GRANT CREATE ON SCHEMA public TO {ROLE}",
            f"GRANT CREATE, TEMPORARY ON DATABASE {{database}} TO {ROLE}",
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
        ],
    )
    def test_takes_back_what_was_given_too_much(self, given):
        execute(given.format(database=connection.settings_dict["NAME"]))
        if "(amount)" not in given:
            assert roles.standing(ROLE).surplus

        call_command("grant-serving-role", ROLE, stderr=io.StringIO())

        assert roles.standing(ROLE) == roles.RoleDrift([], [])
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT has_column_privilege(%s, 'flux_transaction', 'amount', 'UPDATE')", [ROLE]
            )
            assert cursor.fetchone() == (False,)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (f"GRANT pg_write_all_data TO {ROLE}", "is a member of pg_write_all_data"),
            (f"GRANT pg_execute_server_program TO {ROLE}", "pg_execute_server_program"),
            (f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}", "silences triggers"),
            (f"ALTER ROLE {ROLE} CREATEROLE", "may make roles"),
            (f"ALTER TABLE audit_entry OWNER TO {ROLE}", "owns tables: audit_entry"),
            (f"ALTER FUNCTION billing_open_requests OWNER TO {ROLE}", "owns functions: billing_op"),
            ("GRANT UPDATE ON audit_entry TO PUBLIC", "may UPDATE audit_entry"),
        ],
    )
    def test_says_what_it_cannot_take_back(self, given, said):
        execute(given)

        with pytest.raises(CommandError, match=said) as refused:
            call_command("grant-serving-role", ROLE, stderr=io.StringIO())

        assert refused.value.returncode == 1

    def test_names_a_table_that_nobody_has_decided_on(self):
        execute("CREATE TABLE undecided (id int)")
        said = io.StringIO()

        call_command("grant-serving-role", ROLE, stderr=said)

        assert "undecided" in said.getvalue()
        assert roles.standing(ROLE) == roles.RoleDrift([], [])

    def test_is_for_another_role_than_the_owner(self):
        for role in (roles.current(), "postgres", "nobody_of_this_name"):
            with pytest.raises(CommandError):
                call_command("grant-serving-role", role)

    def test_can_be_shown_first(self):
        execute(f"REVOKE ALL ON audit_entry FROM {ROLE}")
        shown = io.StringIO()

        call_command("grant-serving-role", ROLE, "--dry-run", stdout=shown)

        assert roles.standing(ROLE).lacking == ["may not INSERT, SELECT audit_entry"]
        execute(shown.getvalue())
        assert roles.standing(ROLE) == roles.RoleDrift([], [])

    def test_quotes_any_name(self):
        execute('CREATE ROLE "the server; DROP TABLE chat"')

        roles.grant("the server; DROP TABLE chat")

        assert roles.standing("the server; DROP TABLE chat") == roles.RoleDrift([], [])


class TestCheck:
    def test_is_silent_with_the_role_that_serves(self):
        with serving_role.worn():
            assert checks.role_only_serves(None) == []

    def test_warns_of_a_superuser(self):
        (found,) = checks.role_only_serves(None)

        assert (found.id, found.level) == ("airi.W001", 30)
        assert found.msg == f"The database role {roles.current()} is a superuser."

    def test_warns_of_an_owner(self):
        execute(f"ALTER TABLE chat OWNER TO {ROLE}")

        with serving_role.worn():
            (found,) = checks.role_only_serves(None)

        assert found.id == "airi.W001"
        assert "owns tables: chat" in found.msg

    def test_fails_when_something_is_missing(self):
        execute(f"REVOKE UPDATE ON user_flux FROM {ROLE}")

        with serving_role.worn():
            (found,) = checks.role_only_serves(None)

        assert found.id == "airi.E018"
        assert "may not UPDATE user_flux" in found.msg

    def test_is_part_of_checking_a_deployment(self):
        said = io.StringIO()

        with pytest.raises(Exception, match=r"airi\.E0"):  # the tests allow every host
            call_command("check", "--deploy", stderr=said, stdout=said)


class TestInstances:
    """Sessions show the names of instances to every role, so that orphans are found by each."""

    @pytest.mark.parametrize(
        ("user", "password"), [(ROLE, serving_role.PASSWORD), ("", "")], ids=["role", "owner"]
    )
    def test_are_seen_by_the_role_and_by_the_owner(self, user, password):
        with psycopg.connect(
            database_url(user, password), application_name=f"{instance.PREFIX}elsewhere"
        ):
            seen_by_owner = instances.live()
            with serving_role.worn():
                seen_by_role = instances.live()

        assert "elsewhere" in seen_by_owner
        assert seen_by_role == seen_by_owner

    def test_that_live_have_no_orphans_for_the_role(self, monkeypatch):
        monkeypatch.setattr(reconciliation, "RESTART_GRACE_S", 0)
        user_id, price = make.make_account(100), make.price()
        for instance_id in ("elsewhere", "nowhere"):
            make.open_one(make.ticket(user_id, price, instance_id=instance_id), 5)

        with psycopg.connect(database_url(), application_name=f"{instance.PREFIX}elsewhere"):
            with serving_role.worn():
                found = list(reconciliation.orphans())

        assert [each.instance_id for each in found] == ["nowhere"]
