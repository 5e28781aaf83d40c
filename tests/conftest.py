"""Real PostgreSQL, real Redis, real sockets; only providers are played (tests/fakes)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import SyncToAsync
from django.core.management.commands import flush
from django.db import connection, connections
from django.db.backends.postgresql.operations import DatabaseOperations

from airi_server.kernel import database, notify, redis
from airi_server.launch import worker
from airi_server.runtime import published
from chats import hub
from llmrouter import limits, owners
from llmrouter.routing import health
from llmrouter.routing import upstream as upstream_client
from tests.fakes.upstream import ScriptedUpstream
from tests.processes.instances import Fleet, Nursery

_KEPT: Final = {"auth_permission", "django_content_type"}
"""What migrating has filled and no test changes."""
_EMPTY: Final = """
DO $$
DECLARE
    has_rows boolean;
    filled text[] := '{{}}';
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY[{tables}] LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || each || ')' INTO has_rows;
        IF has_rows THEN
            filled := filled || each;
        END IF;
    END LOOP;
    IF filled <> '{{}}' THEN
        EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE';
    END IF;
END
$$
"""


def _sql_flush(self, style, tables, **_options):
    """Empty the tables that a test has filled, also those whose triggers only let rows come."""
    names = ", ".join(f"'{self.quote_name(each)}'" for each in tables if each not in _KEPT)
    return [
        "SET session_replication_role = replica",
        _EMPTY.format(tables=names),
        "SET session_replication_role = origin",
    ]


DatabaseOperations.sql_flush = _sql_flush  # type: ignore[method-assign]  # the point
# What the signal would make again is kept.
flush.emit_post_migrate_signal = lambda *_, **__: None  # type: ignore[attr-defined]


@pytest_asyncio.fixture
async def hot(transactional_db):
    """This test's event loop as the hot path needs it; everything it opened is closed after."""
    health.forget()
    limits.forget()
    await published.refresh()
    yield
    await owners.drain(5)
    assert owners.count() == 0, "a paid request was left behind"
    for close in (hub.close, upstream_client.close, notify.close, redis.close, database.close):
        await close()


@pytest.fixture
def still(monkeypatch):
    """Return what a test awaits before it counts: nothing but its own requests is sent after."""

    async def hold_off():
        async with asyncio.timeout(5):
            while not redis.link().is_up:
                redis.link().dial()
                await asyncio.sleep(0.005)
        await asyncio.sleep(1.5 * health.CATCH_UP_PAUSE_S)
        await published.refresh()
        # Neither the regular poll nor a late hint falls into what is counted.
        monkeypatch.setattr(published._Watch, "is_fresh", lambda _watch: True)

    return hold_off


@pytest_asyncio.fixture
async def upstream():
    """A provider on loopback that says what the test tells it to."""
    async with ScriptedUpstream() as scripted:
        yield scripted


class Served:
    """The whole application behind a real socket, in the test's own event loop."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self.session = session

    def headers(self, key: str | None, **more: str) -> dict[str, str]:
        return {**({"Authorization": f"Bearer {key}"} if key else {}), **more}

    async def get(self, path: str, key: str | None = None, **headers: str) -> Got:
        return await self.send("GET", path, key=key, headers=headers)

    async def post(
        self, path: str, json: Any = None, key: str | None = None, **headers: str
    ) -> Got:
        return await self.send("POST", path, json=json, key=key, headers=headers)

    async def send(self, method: str, path: str, *, key=None, headers=None, **more: Any) -> Got:
        """Send and read to the end; a stream cut off on purpose is `cut`."""
        all_headers = self.headers(key, **(headers or {}))
        async with self.session.request(
            method, self.base_url + path, headers=all_headers, **more
        ) as response:
            body, cut = b"", False
            try:
                async for part in response.content.iter_any():
                    body += part
            except aiohttp.ClientPayloadError:
                cut = True
            return Got(response.status, response.headers, body, cut)


@dataclass(frozen=True)
class Got:
    """A response that was read to its end, or to where it was cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool

    def json(self) -> Any:
        return orjson.loads(self.body)


class _Server(uvicorn.Server):
    """Ends when it is told to: uvicorn looks ten times a second, and then waits a tenth of one."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give what still runs as long as uvicorn does, but no longer than it takes."""
        for listening in self.servers:
            listening.close()
        for each in list(self.server_state.connections):
            each.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.005)
        for listening in self.servers:
            await listening.wait_closed()


@pytest_asyncio.fixture
async def served(hot):
    """Serve `airi_server.asgi` with uvicorn, without its lifespan: `hot` closes what it opens."""
    from airi_server.asgi import application

    # asyncio sends small segments at once only on sockets that say they are TCP.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            application, lifespan="off", log_config=None, access_log=False, **worker.SOCKETS
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", session)
        server.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture(scope="session")
def nursery(django_db_setup, tmp_path_factory):
    """What forks the processes of this worker: imported once, on the database of the tests."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture
def fleet(transactional_db, nursery):
    """Servers and commands as processes of their own, on this test's database and Redis."""
    with Fleet(nursery) as made:
        yield made


@pytest.fixture
def pooled(transactional_db):
    """Lend connections to the threads of views from a pool, as in production.

    For tests of very many requests: to open a connection takes longer than most requests do.
    """
    options = connection.settings_dict["OPTIONS"]
    # A connection goes back to where it came from, so none may be open on either side of this.
    _close_connections()
    options["pool"] = {"min_size": 0, "max_size": 10}
    yield
    _close_connections()
    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's has it
    del options["pool"]


def _close_connections():
    """Close this thread's connection and that of the thread in which async tests call the ORM."""
    connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture(scope="session", autouse=True)
def _no_proxies():
    """A proxy in the environment must not stand between the tests and loopback."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
