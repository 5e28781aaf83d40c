"""Processes that are killed and stopped, and servers of PostgreSQL and Valkey of one's own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from airi_server.kernel import database
from tests import serving_role
from tests.fakes.proxy import FaultyProxy
from tests.faults.own_servers import OwnPostgres, working_on
from tests.lab.server import database_url
from tests.processes.conftest import ThreadedUpstream


@pytest.fixture
def fleet(fleet):
    """The same as everywhere, but of a build that can be told where to die."""
    fleet.application = "tests.faults.build:application"
    return fleet


@pytest.fixture
def provider():
    with ThreadedUpstream() as scripted:
        yield scripted


@pytest_asyncio.fixture
async def proxy(transactional_db, monkeypatch):
    """The hot path's way to PostgreSQL, through a proxy; use it before `hot` or `served`."""
    conninfo = database._conninfo()
    target = psycopg.conninfo.conninfo_to_dict(conninfo)
    async with FaultyProxy(str(target["host"]), int(target["port"] or 5432)) as made:
        through = psycopg.conninfo.make_conninfo(conninfo, host="127.0.0.1", port=str(made.port))
        monkeypatch.setattr(database, "_conninfo", lambda: through)
        yield made


@pytest.fixture(scope="session")
def _own_postgres(django_db_setup):
    with tempfile.TemporaryDirectory(prefix="airi-faults-") as directory:
        made = OwnPostgres(Path(directory))
        try:
            made.prepare(database_url())
            yield made
        finally:
            made.stop()


@pytest.fixture
def postgres(fleet, _own_postgres):
    """A PostgreSQL of one's own, empty; the test and its fleet work on it."""
    fleet.database = _own_postgres.settings | serving_role.settings()
    with working_on(_own_postgres.settings):
        yield _own_postgres
        fleet.end()
