"""The roles of the PostgreSQL that `./run` brings: who owns, who serves, and clusters without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from airi_server import roles
from airi_server.launch import environment, locks, manage, postgres, private, processes, stack

_BEFORE_ROLES = f"""
CREATE TABLE kept (id bigint GENERATED ALWAYS AS IDENTITY, word text);
INSERT INTO kept (word) VALUES ('kept');
CREATE FUNCTION kept() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER DATABASE {postgres.DATABASE} OWNER TO postgres;
DROP OWNED BY {postgres.OWNER}, {postgres.SERVING};
DROP ROLE {postgres.OWNER}, {postgres.SERVING};
"""
"""Make a cluster what it was when everything was the superuser's."""


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Stack]:
    with stack.Stack(tmp_path_factory.mktemp("roles") / "data", durable=False) as running:
        yield running


class Commands:
    """`manage.py` on a database of its own setting, as a deployment runs it."""

    def __init__(self, running: stack.Stack) -> None:
        self._redis_url = running.redis_url

    def __call__(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=processes.ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "airi_server.settings.dev",
                "DATABASE_URL": url,
                "REDIS_URL": self._redis_url,
            },
            capture_output=True,
            text=True,
            check=False,
        )


def test_a_deployment_migrates_as_the_owner_and_serves_as_the_other(running: stack.Stack) -> None:
    manage_py = Commands(running)

    migrated = manage_py(running.owner_url, "migrate", "--verbosity=0")
    granted = manage_py(running.owner_url, "grant-serving-role", postgres.SERVING)
    agreed = manage_py(running.serving_url, "reconcile-usage")
    checked = manage_py(running.serving_url, "check", "--deploy", "--database", "default")

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert (granted.returncode, granted.stderr) == (0, f"{postgres.SERVING} may serve\n")
    assert agreed.returncode == 0, agreed.stderr
    for wrong in ("airi.W001", "airi.E018", "airi.E002", "airi.E003"):
        assert wrong not in checked.stderr
    owners = ask(running.owner_url, "SELECT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert set(owners) == {(postgres.OWNER,)}
    assert len(owners) == len(roles.PRIVILEGES)


def test_the_owner_is_the_hand_of_whoever_works_with_sql(running: stack.Stack) -> None:
    ((superuser, makes_databases),) = ask(
        running.owner_url,
        "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user",
    )
    assert (superuser, makes_databases) == (False, True)
    ask(running.owner_url, "SET session_replication_role = replica")
    with psycopg.connect(running.serving_url) as session:
        pid = session.info.backend_pid
        query = f"SELECT query FROM pg_stat_activity WHERE pid = {pid}"
        session.execute("SELECT 'seen'")
        assert ask(running.owner_url, query) == [("SELECT 'seen'",)]
        assert ask(running.owner_url, f"SELECT pg_terminate_backend({pid})") == [(True,)]
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_each_role_has_a_password_of_its_own(running: stack.Stack) -> None:
    urls = (running.database_url, running.owner_url, running.serving_url)

    passwords = {url.split(":")[2].split("@")[0] for url in urls}

    assert len(passwords) == 3
    assert {ask(url, "SELECT current_user")[0][0] for url in urls} == {
        postgres.SUPERUSER,
        postgres.OWNER,
        postgres.SERVING,
    }


def test_a_cluster_from_before_gets_them_at_its_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with stack.Stack(directory, durable=False) as before:
        for statement in _BEFORE_ROLES.strip().split("\n"):
            ask(before.database_url, statement)
    for role in (postgres.OWNER, postgres.SERVING):
        (directory / "postgres" / f"{role}.password").unlink()
    (directory / "postgres" / "airi.password").chmod(0o644)

    with stack.Stack(directory, durable=False) as after:
        assert ask(after.owner_url, "SELECT word, kept() FROM kept") == [("kept", 1)]
        ask(after.owner_url, "INSERT INTO kept (word) VALUES ('more')")
        ask(after.owner_url, "ALTER TABLE kept ADD COLUMN new int")
        ask(after.owner_url, "DROP FUNCTION kept()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(after.serving_url, "SELECT FROM kept")
        first = after.serving_url.split("@")[0]
        assert (directory / "postgres" / "airi.password").stat().st_mode & 0o777 == 0o600
    with stack.Stack(directory, durable=False) as again:
        assert again.serving_url.split("@")[0] == first


def test_an_interrupted_change_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with stack.Stack(directory, durable=False) as before:
        ask(before.owner_url, "CREATE TABLE kept AS SELECT 1 AS one")
    # The roles are there, and one of the passwords was never written.
    (directory / "postgres" / f"{postgres.SERVING}.password").unlink()

    with stack.Stack(directory, durable=False) as after:
        assert ask(after.serving_url, "SELECT current_user") == [(postgres.SERVING,)]
        assert ask(after.owner_url, "SELECT one FROM kept") == [(1,)]


def test_servers_of_an_older_version_are_not_joined(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with stack.Stack(directory, durable=False):
        state = private.read(directory / "stack.json")
        private.write(
            directory / "stack.json",
            {name: value for name, value in state.items() if name != "serving_url"},
        )
        with pytest.raises(stack.StackFailed, match="older"):
            stack.Stack(directory).start()
        private.write(directory / "stack.json", state)


class TestStorage:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.setenv(name, "")

    def test_of_ours_has_two_roles(self, running: stack.Stack) -> None:
        with environment.storage(running._directory) as storage:
            assert os.environ["DATABASE_URL"] == running.owner_url
            assert storage.serving_url == running.serving_url
            assert storage.has_roles

    def test_that_is_given_is_left_as_it_is(
        self, running: stack.Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgresql://airi:airi@127.0.0.1:5432/airi"
        monkeypatch.setenv("DATABASE_URL", url)
        with environment.storage(running._directory) as half:
            assert (half.serving_url, half.has_roles) == (url, False)
            assert os.environ["REDIS_URL"] == running.redis_url
        with environment.storage(running._directory) as storage:
            assert storage == environment.Storage(None, url)
            assert os.environ["DATABASE_URL"] == url


class TestManage:
    """Which role a command of `./run manage` works with."""

    @pytest.fixture
    def ran(self, running: stack.Stack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        ran: list[tuple[str, str]] = []

        def run(arguments: list[str]) -> None:
            user = os.environ["DATABASE_URL"].split("://")[1].split(":")[0]
            ran.append((" ".join(arguments[1:]), user))

        for name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.setenv(name, "")
        monkeypatch.setattr(environment, "data_directory", lambda _: running._directory)
        monkeypatch.setattr("airi_server.boot.run_command", run)
        return ran

    @pytest.mark.parametrize(
        "command", ["reconcile-usage --settle", "shell", "seed-router-config", "check --deploy"]
    )
    def test_is_the_one_that_serves(self, ran: list[tuple[str, str]], command: str) -> None:
        manage.main(command.split())

        assert ran == [(command, postgres.SERVING)]

    @pytest.mark.parametrize("command", ["dbshell", "flush", "migrate --check", "migrate --plan"])
    def test_is_the_owner_for_the_schema(self, ran: list[tuple[str, str]], command: str) -> None:
        manage.main(command.split())

        assert ran == [(command, postgres.OWNER)]

    def test_is_granted_what_a_migration_brought(self, ran: list[tuple[str, str]]) -> None:
        manage.main(["migrate", "billing"])

        granted = f"grant-serving-role {postgres.SERVING}"
        assert ran == [("migrate billing", postgres.OWNER), (granted, postgres.OWNER)]

    @pytest.mark.parametrize(
        ("arguments", "data", "rest"),
        [
            ("reconcile-usage --settle", None, "reconcile-usage --settle"),
            ("--data there shell", "there", "shell"),
            ("explain-route auto --data=there", "there", "explain-route auto"),
            ("test -- --data there", None, "test -- --data there"),
        ],
    )
    def test_takes_a_directory_anywhere(self, arguments: str, data: str | None, rest: str) -> None:
        found, others = manage._without_data(arguments.split())

        assert (found, others) == (None if data is None else Path(data), rest.split())

    @pytest.mark.parametrize("arguments", ["shell --data", "--data="])
    def test_says_when_it_is_missing(self, arguments: str) -> None:
        with pytest.raises(SystemExit, match="--data needs a directory"):
            manage._without_data(arguments.split())

    def test_follows_whoever_serves_from_other_servers(
        self, ran: list[tuple[str, str]], running: stack.Stack
    ) -> None:
        file = running._directory / "demo.json"
        given = "postgresql://airi:airi@127.0.0.1:5432/airi"
        private.write(file, {"serving_database_url": given, "redis_url": running.redis_url})
        manage.main(["shell"])
        os.environ["DATABASE_URL"] = ""
        with locks.Serving(running._directory):
            manage.main(["shell"])
        file.unlink()

        assert ran == [("shell", postgres.SERVING), ("shell", "airi")]

    def test_is_whoever_was_given(
        self, ran: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://airi:airi@127.0.0.1:5432/airi")
        manage.main(["shell"])
        manage.main(["migrate"])

        assert ran == [("shell", "airi"), ("migrate", "airi")]


def test_the_state_of_a_stack_is_json_that_only_we_may_read(running: stack.Stack) -> None:
    file = running._directory / "stack.json"

    assert set(json.loads(file.read_text())) == {
        "database_url", "owner_url", "serving_url", "redis_url", "supervisor_pid",
    }  # fmt: skip
    assert file.stat().st_mode & 0o777 == 0o600
