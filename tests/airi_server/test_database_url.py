"""`DATABASE_URL` with query parameters: they hold for the hot path as for Django's way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from psycopg.conninfo import conninfo_to_dict

from airi_server import env
from tests.lab.server import ROOT

PRINT = """
import os
os.environ["DATABASE_URL"] = "postgresql://a:b%40c@db.example:6432/airi" + os.environ["QUERY"]
import django
django.setup()
from django.conf import settings
from airi_server.kernel import database
options = settings.DATABASES["default"]["OPTIONS"]
print(sorted(name for name in options if name not in ("pool", "options")))
print(database._conninfo())
"""


def told(query):
    """Return what Django's options have beside ours, and the hot path's connection string."""
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "airi_server.settings.dev",
        "QUERY": query,
    }
    ran = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=ROOT, env=environ, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    options, conninfo = ran.stdout.splitlines()[-2:]
    return options, conninfo_to_dict(conninfo)


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("?sslmode=verify-full", "sslmode", "verify-full"),
        ("?connect_timeout=30", "connect_timeout", 30),
        ("?keepalives_idle=77&sslmode=require", "keepalives_idle", "77"),
        ("", "connect_timeout", 5),
    ],
)
def test_query_parameters_reach_both_ways(query, name, value):
    options, hot = told(query)

    assert str(hot[name]) == str(value)
    assert name in options
    assert (hot["host"], hot["user"], hot["password"]) == ("db.example", "a", "b@c")
    assert "statement_timeout=10s" in str(hot["options"])


@pytest.mark.parametrize(
    ("query", "host", "port"),
    [
        ("?target_session_attrs=read-write&host=one,two", "one,two", "6432"),
        ("?host=one,two&port=5432,5433", "one,two", "5432,5433"),
    ],
)
def test_hosts_in_the_query_reach_the_hot_path(query, host, port):
    _, hot = told(query)

    assert (hot["host"], str(hot["port"]), hot["dbname"]) == (host, port, "airi")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://a:b@one,two/db?target_session_attrs=read-write", "one,two", ","),
        ("postgresql://a:b@one:5432,two:5433/db", "one,two", "5432,5433"),
        ("postgresql://a:b@[::1]:6000,two:5433/db", "::1,two", "6000,5433"),
        ("postgresql:///db?host=/run/postgresql", "/run/postgresql", 5432),
    ],
)
def test_several_hosts_are_read_once(url, host, port):
    show = "from airi_server.settings import dev; d = dev.DATABASES['default']; "
    ran = subprocess.run(
        [sys.executable, "-c", show + "print([d['HOST'], d['PORT'], d['NAME']])"],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip

    assert ran.stdout.strip() == str([host, port, "db"])


@pytest.mark.parametrize("place", ["one:0,two:5432", "one:5432,two:no", "one:70000"])
def test_a_port_that_cannot_be_is_refused_for_any_of_them(place, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"postgresql://a:b@{place}/db")

    with pytest.raises(env.InvalidVariable, match="its port is no number from 1 to 65535"):
        env.database_url("DATABASE_URL")
