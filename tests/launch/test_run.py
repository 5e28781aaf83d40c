"""`./run` as a whole: who owns, who serves, and what demo.json says of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from airi_server.launch import postgres, private, processes

_START_S = 90.0
_ASKED = {"model": "chat-default", "messages": [{"role": "user", "content": "one two"}]}
_SESSIONS = """
SELECT DISTINCT usename FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'airi %'
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What demo.json says while `./run` serves from a directory that was there, and was open."""
    directory = tmp_path_factory.mktemp("run") / "data"
    directory.mkdir()
    directory.chmod(0o755)
    ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "LLM_ROUTER_MASTER_KEY", "API_SERVER_URL")
    unset = (*ours, "DJANGO_SETTINGS_MODULE", "OPENROUTER_KEY")
    command = [sys.executable, "-m", "airi_server.launch", "serve", "--port"]
    with (
        (directory.with_name("log")).open("wb") as log,
        subprocess.Popen(
            [*command, str(processes.free_port()), "--data", str(directory)],
            cwd=processes.ROOT,
            env={name: value for name, value in os.environ.items() if name not in unset},
            stdout=log,
            stderr=log,
        ) as running,
    ):
        try:
            yield _kept(directory, running) | {"directory": str(directory)}
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0


def _kept(directory: Path, running: subprocess.Popen[bytes]) -> dict[str, str]:
    deadline = time.monotonic() + _START_S
    while not (kept := private.read(directory / "demo.json")):
        if running.poll() is not None or time.monotonic() > deadline:
            pytest.fail(processes.tail(directory.with_name("log"), lines=40))
        time.sleep(0.05)
    return kept


def test_the_servers_work_with_the_role_that_serves(demo: dict[str, str]) -> None:
    answered = httpx.post(
        f"{demo['base_url']}/v1/chat/completions",
        json=_ASKED,
        headers={"Authorization": f"Bearer {demo['api_key']}"},
        timeout=30,
    )

    assert answered.json()["choices"][0]["message"]["content"] == "one two"
    with psycopg.connect(demo["database_url"]) as session:
        assert session.execute(_SESSIONS.encode()).fetchall() == [(postgres.SERVING,)]


def test_the_console_is_served_with_it_too(demo: dict[str, str]) -> None:
    with httpx.Client(base_url=demo["base_url"], timeout=30, follow_redirects=True) as browser:
        browser.get("/admin/login/")
        form = {"username": demo["admin_email"], "password": demo["admin_password"]}
        token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        entered = browser.post("/admin/login/", data={**form, **token})

    assert entered.status_code == 200
    assert str(entered.url).endswith("/admin/")


def test_demo_json_has_a_hand_for_sql_and_the_role_that_serves(demo: dict[str, str]) -> None:
    by_hand = """UPDATE "user" SET is_staff = true WHERE email = 'demo@example.com'"""
    with psycopg.connect(demo["database_url"]) as session:
        assert session.execute(b"SELECT current_user").fetchone() == (postgres.OWNER,)
        assert session.execute(by_hand.encode()).rowcount == 1
        session.execute(b"ALTER TABLE flux_transaction DISABLE TRIGGER USER")
        session.rollback()
    with psycopg.connect(demo["serving_database_url"]) as session:
        assert session.execute(b"SELECT current_user").fetchone() == (postgres.SERVING,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(b"ALTER TABLE flux_transaction DISABLE TRIGGER USER")


def test_nothing_it_keeps_is_open_to_others(demo: dict[str, str]) -> None:
    directory = Path(demo["directory"])

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    secret = [*directory.glob("*.json"), *directory.glob("postgres/*.password")]
    assert len(secret) >= 7
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert "was open to others" in directory.with_name("log").read_text()
