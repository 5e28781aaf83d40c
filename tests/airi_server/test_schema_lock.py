"""Of processes that start together one migrates; the others wait without standing in its way."""

from __future__ import annotations

import threading

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections

from airi_server.management import schema_lock

IN_ITS_WAY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%%')
"""


class Said:
    """What a command writes, and that it has."""

    def __init__(self) -> None:
        self.text = ""
        self.once = threading.Event()

    def write(self, text: str) -> None:
        self.text += text
        self.once.set()


@pytest.fixture
def holder(transactional_db):
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as session:
        yield session


def take(session: psycopg.Connection) -> bool:
    row = session.execute("SELECT pg_try_advisory_lock(%s)", [schema_lock.LOCK]).fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize("command", [("migrate",), ("grant-serving-role", "airi_app")])
def test_whoever_comes_second_waits_and_is_in_nobodys_way(holder, monkeypatch, command):
    monkeypatch.setattr(schema_lock, "PAUSE_S", 0.01)
    ended = []
    monkeypatch.setattr(
        "django.core.management.commands.migrate.Command.handle", lambda *_, **__: ended.append(1)
    )
    monkeypatch.setattr("airi_server.roles.grant", lambda _role: ended.append(1))
    monkeypatch.setattr("airi_server.roles.standing", lambda _role: NOTHING)
    said = Said()

    def run() -> None:
        call_command(*command, stderr=said)
        connections.close_all()

    assert take(holder)
    second = threading.Thread(target=run)
    second.start()
    assert said.once.wait(10)
    assert "Another process is migrating this database; waiting for it ..." in said.text
    # Between two questions; CREATE INDEX CONCURRENTLY would wait for anything else.
    assert any(holder.execute(IN_ITS_WAY).fetchone() == (0,) for _ in range(100))
    assert second.is_alive()
    assert not ended

    holder.execute("SELECT pg_advisory_unlock_all()")
    second.join(10)

    assert ended == [1]
    assert take(holder)


class NOTHING:
    """A role's standing with nothing to say about it."""

    surplus = lacking = ()


@pytest.mark.parametrize("only_shows", ["--plan", "--check"])
def test_looking_waits_for_nobody(holder, only_shows):
    assert take(holder)

    call_command("migrate", only_shows, verbosity=0)


def test_it_may_be_nested_and_a_fault_lets_go_of_it(holder):
    with pytest.raises(ZeroDivisionError), schema_lock.held(connection, say=print):
        with schema_lock.held(connection, say=print):
            assert not take(holder)
        assert not take(holder)
        raise ZeroDivisionError

    assert take(holder)
