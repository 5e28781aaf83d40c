"""A mistake at the start is one line: which variable, its value, what is wrong, what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError
from django.db import DatabaseError, OperationalError, ProgrammingError, connection
from redis.exceptions import ConnectionError as RedisAway

from airi_server import boot, env
from airi_server.kernel import database
from airi_server.launch import processes
from tests.airi_server.test_hardening import GOOD
from tests.lab.server import ROOT, manage

SECRET = "hunter2-of-the-tests"
MANAGE = ["manage.py", "export-router-config"]
UVICORN = ["-m", "uvicorn", "airi_server.asgi:application", "--port", "1"]
URLS = [
    ("", "is not set"),
    (f"airi:{SECRET}@127.0.0.1/airi", "has to begin with postgresql://"),
    (f"mysql://airi:{SECRET}@127.0.0.1/airi", "has to begin with postgresql://"),
    (f"postgresql://airi:{SECRET}#@127.0.0.1/airi", "its port is no number"),
    (f"postgresql://airi:{SECRET}@127.0.0.1:99999/airi", "its port is no number"),
    (f"postgresql://airi:{SECRET}@127.0.0.1:0/airi", "its port is no number"),
    (f"postgresql://airi:{SECRET}@[::1/airi", "half of a pair of brackets"),
    (f"postgresql://airi:{SECRET}@127.0.0.1", "names no database"),
    (f"postgresql://airi:{SECRET}%zz@127.0.0.1/airi", "cannot read it"),
    (f"postgresql://127.0.0.1/airi?password={SECRET}&pool=2", 'unknown query parameter: "pool"'),
]
VALUES = [
    ("LOG_LEVEL", "loud", "'loud', which is none of DEBUG, INFO"),
    ("DB_POOL_MAX", "many", "'many', which is no whole number from 1 to"),
    ("DB_POOL_MAX", "", "'', which is no whole number"),
    ("HOT_POOL_MAX", "3", "'3', which is no whole number from 4 to 64"),
    ("OTEL_TRACES_SAMPLING_RATIO", "2", "'2', which is no number from 0 to 1"),
    ("SERVER_INSTANCE_ID", "a b", "'a b'. It may have 40"),
    ("CSRF_TRUSTED_ORIGINS", "app.example.com", "'app.example.com', which is not a URL"),
    ("CSRF_TRUSTED_ORIGINS", "https://[::1", "'https://[::1', which is not a URL"),
    ("API_SERVER_URL", "https://", "'https://': it names no host"),
    ("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:no/0", "'redis://***@127.0.0.1:no/0': its port"),
    ("REDIS_URL", f"http://:{SECRET}@127.0.0.1", "has to begin with redis:// or rediss://"),
    ("LLM_ROUTER_MASTER_KEY", SECRET, "is not base64"),
    ("LLM_ROUTER_MASTER_KEY", "aHVudGVyMg==", "has 7 bytes; it is base64 of exactly 32"),
    ("LLM_ROUTER_MASTER_KEY_PREVIOUS", "aHVudGVyMg==", "has 7 bytes"),
    ("SECRET_KEY", " ", "is not set. Set it, or SECRET_KEY_FILE"),
]  # fmt: skip


def started(
    *command: str, settings: str = "dev", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run something with nothing in its environment but what is good, and what is given."""
    variables = {**GOOD, "DJANGO_SETTINGS_MODULE": f"airi_server.settings.{settings}", **environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestVariables:
    """One process reads them all: the settings are the same for every way to start."""

    @pytest.fixture
    def line(self, monkeypatch):
        def read(name: str, value: str) -> str:
            for each, good in (GOOD | {name: value}).items():
                monkeypatch.setenv(each, good)
            with pytest.raises(env.InvalidVariable) as refused:
                _read_settings()
            return str(refused.value)

        return read

    @pytest.mark.parametrize(("value", "wrong"), URLS)
    def test_of_the_database(self, line, value, wrong):
        said = line("DATABASE_URL", value)

        assert said.startswith("DATABASE_URL is ")
        assert wrong in said
        assert SECRET not in said
        assert said.count("\n") == 0

    @pytest.mark.parametrize(("name", "value", "wrong"), VALUES)
    def test_of_everything_else(self, line, name, value, wrong):
        said = line(name, value)

        assert said.startswith(f"{name} ")
        assert wrong in said
        assert SECRET not in said
        assert said.endswith(".")
        assert said.count("\n") == 0

    def test_of_a_file(self, line, monkeypatch, tmp_path):
        for content, wrong in ((None, "No such file"), (b"\xff", "UTF-8"), (b" \n", "empty")):
            file = tmp_path / "key"
            if content is not None:
                file.write_bytes(content)
            said = line("SECRET_KEY_FILE", str(file))
            assert said.startswith(f"SECRET_KEY_FILE is '{file}'")
            assert wrong in said
            assert "unset it and set SECRET_KEY" in said
        assert "Is a directory" in line("SECRET_KEY_FILE", str(tmp_path))

    def test_a_level_may_be_written_in_any_letters(self, monkeypatch):
        monkeypatch.setenv("LOG_LEVEL", "warning")
        assert env.level("LOG_LEVEL", "INFO") == "WARNING"


def _read_settings() -> None:
    """Execute the module, whose names are the settings, once more: nobody keeps them."""
    source = (Path(ROOT) / "airi_server/settings/base.py").read_text()
    names = {"__file__": str(Path(ROOT) / "airi_server/settings/base.py"), "__name__": "again"}
    exec(compile(source, names["__file__"], "exec"), names)


def test_a_command_says_a_variable_in_one_line():
    said = started(*MANAGE, DATABASE_URL=f"mysql://a:{SECRET}@h/d")

    assert said.returncode == 1
    assert said.stderr.startswith("DATABASE_URL is 'mysql://***@h/d': ")
    assert said.stderr.count("\n") == 1


def test_a_server_started_by_uvicorn_says_a_short_secret_in_one_line():
    said = started(*UVICORN, settings="production", SECRET_KEY="short")

    assert said.returncode == 1
    assert said.stderr.startswith("SECRET_KEY has 5 characters; it needs 50. Set one made by")
    assert said.stderr.count("\n") == 1


def test_settings_that_are_not_there_are_one_line():
    said = started(*MANAGE, settings="prod")

    assert said.returncode == 1
    assert said.stderr.startswith("DJANGO_SETTINGS_MODULE is 'airi_server.settings.prod': ")
    assert said.stderr.count("\n") == 1


def test_a_database_that_is_not_there_is_one_line_at_once():
    url = f"postgresql://airi:{SECRET}@127.0.0.1:{processes.free_port()}/airi"
    began = time.monotonic()
    said = started(*MANAGE, DATABASE_URL=url)

    # Thirty seconds, where a pool is waited for.
    assert time.monotonic() - began < 25
    assert said.returncode == 1
    assert said.stderr.startswith("DATABASE_URL leads to airi@127.0.0.1:")
    assert "Connection refused. Start PostgreSQL there" in said.stderr
    assert SECRET not in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_database_that_was_never_migrated_is_one_line():
    # Nobody has migrated the cluster's own database.
    elsewhere = f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/postgres"
    said = manage("export-router-config", DATABASE_URL=elsewhere)

    assert said.returncode == 1
    assert said.stderr.startswith('The database refuses: relation "router_revision" does not exist')
    assert "run `migrate` as the owner" in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_server_started_by_uvicorn_says_why_it_has_no_database():
    url = f"postgresql://airi:{SECRET}@127.0.0.1:{processes.free_port()}/airi"
    environ = {"PATH": os.environ["PATH"], **GOOD, "DATABASE_URL": url}
    environ["DJANGO_SETTINGS_MODULE"] = "airi_server.settings.dev"
    command = [sys.executable, *UVICORN[:-1], str(processes.free_port())]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            lines = iter(server.stderr.readline, "")
            line = next(json.loads(each) for each in lines if "Started without" in each)
        finally:
            server.kill()

    assert line["fault"].startswith("DATABASE_URL leads to airi@127.0.0.1:")
    assert "Connection refused" in line["fault"]
    assert SECRET not in line["fault"]


class TestExplained:
    @pytest.mark.parametrize(
        ("fault", "line"),
        [
            (RedisAway("Error 111 connecting"), r"^REDIS_URL is redis://.*: Error 111 conn.*\. "),
            (OSError(28, "No space left on device", "/data/x"), r"^/data/x: No space left on dev"),
            (psycopg.errors.InsufficientPrivilege("permission denied"), r"denied\. Work with the"),
            (psycopg.errors.LockNotAvailable("canceling"), r"canceling\. Somebody else holds"),
            (psycopg.OperationalError("a\nb?"), r"^DATABASE_URL leads to \S+: a b\. Start"),
        ],
    )  # fmt: skip
    def test_is_one_line(self, fault, line):
        with pytest.raises(SystemExit, match=line) as ended, boot.explained():
            if isinstance(fault, psycopg.Error):
                raise OperationalError from fault
            raise fault
        assert str(ended.value).count("\n") == 0

    @pytest.mark.parametrize(
        "bug",
        [
            ProgrammingError("ours"),
            DatabaseError("ours"),
            OSError("ours"),
            ValueError("ours"),
            CommandError("Django's to say"),
        ],
    )
    def test_leaves_a_bug_its_traceback(self, bug):
        with pytest.raises(type(bug)), boot.explained():
            raise bug


def test_what_the_url_says_of_time_outs_wins_over_ours(monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "connect_timeout", "3")

    found = psycopg.conninfo.conninfo_to_dict(database._conninfo())

    assert (found["connect_timeout"], found["keepalives_idle"]) == ("3", "10")
