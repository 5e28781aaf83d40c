"""Real PostgreSQL, real Redis, real sockets; only providers are played (tests/fakes)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import orjson
import psycopg
import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import SyncToAsync
from django.core.management.commands import flush
from django.db import connection, connections
from django.db.backends.postgresql.operations import DatabaseOperations
from django_redis import get_redis_connection

from airi_server.kernel import database, pubsub, redis
from airi_server.runtime import published
from airi_server.web import serve
from billing import reconciliation
from billing.admin import dashboard
from billing.usage import refusals
from chats import fanout
from chats.sockets import hub
from llmrouter.gateway import limits, tasks
from llmrouter.routing import health, repairs
from llmrouter.upstream import client as upstream_client
from tests import serving_role
from tests.fakes.proxy import SilentProxy
from tests.fakes.raw import loading, silent
from tests.fakes.upstream import ScriptedUpstream
from tests.lab.instances import Fleet, Nursery

_KEPT: Final = {"auth_permission", "django_content_type"}
"""What migrating has filled and no test changes."""
_EMPTY: Final = """
DO $$
DECLARE
    has_rows boolean;
    filled text[] := '{{}}';
    each text;
    is_big boolean;
    off text;
    back text;
BEGIN
    FOREACH each IN ARRAY ARRAY[{tables}] LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || each || ')' INTO has_rows;
        IF has_rows THEN
            filled := filled || each;
        END IF;
    END LOOP;
    IF filled <> '{{}}' THEN
        -- To truncate makes a file for each table and index: most tests leave a few rows.
        SELECT sum(pg_relation_size(place)) > 4194304 INTO is_big
        FROM unnest(filled::regclass[]) AS place;
        SELECT string_agg(format('ALTER TABLE %s DISABLE TRIGGER %I', place, tgname), ';'),
               string_agg(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', place, tgname), ';')
        INTO off, back FROM (SELECT *, tgrelid::regclass AS place FROM pg_trigger) AS guards
        WHERE tgenabled = 'A' AND (
            tgrelid = ANY (filled::regclass[])
            -- What refers to them is truncated too, even if it is empty.
            OR is_big AND tgrelid IN (SELECT conrelid FROM pg_constraint
                           WHERE contype = 'f' AND confrelid = ANY (filled::regclass[]))
        );
        IF off IS NOT NULL THEN EXECUTE off; END IF;
        IF is_big THEN
            EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE';
        ELSE
            -- Foreign keys are not looked at, so that the order is of no matter.
            SET LOCAL session_replication_role = replica;
            FOREACH each IN ARRAY filled LOOP
                EXECUTE 'DELETE FROM ' || each;
            END LOOP;
            SET LOCAL session_replication_role = DEFAULT;
        END IF;
        IF off IS NOT NULL THEN EXECUTE back; END IF;
    END IF;
END
$$
"""


def _sql_flush(self, style, tables, **_options):
    """Empty the tables that a test has filled, also those whose triggers only let rows come."""
    names = ", ".join(f"'{self.quote_name(each)}'" for each in tables if each not in _KEPT)
    return ["RESET ROLE", _EMPTY.format(tables=names)]


DatabaseOperations.sql_flush = _sql_flush  # type: ignore[method-assign]  # the point
# What the signal would make again is kept.
flush.emit_post_migrate_signal = lambda *_, **__: None  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Serve with the role that serves, once the database is migrated."""
    with django_db_blocker.unblock():
        serving_role.install()


@pytest_asyncio.fixture
async def hot(transactional_db):
    """This test's event loop as the hot path needs it; everything it opened is closed after."""
    _forget_health()
    limits.forget()
    repairs.forget()
    fanout.Fanout.silent_until = 0.0
    await published.refresh()
    yield
    await tasks.drain(5)
    assert tasks.count() == 0, "a paid request was left behind"
    await refusals.close()
    for close in (hub.close, upstream_client.close, pubsub.close, redis.close, database.close):
        await close()


def _forget_health():
    """Forget what tests before held against upstreams: revisions begin at 1 again."""
    health.forget()
    get_redis_connection("default").delete(redis.key("health"))


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
async def database_line(transactional_db, monkeypatch):
    """The hot path's way to PostgreSQL, which can be cut. Name it before whatever opens the way."""
    conninfo = database._conninfo()
    target = psycopg.conninfo.conninfo_to_dict(conninfo)
    async with SilentProxy(str(target["host"]), int(target["port"] or 5432)) as line:
        through = psycopg.conninfo.make_conninfo(conninfo, host="127.0.0.1", port=str(line.port))
        monkeypatch.setattr(database, "_conninfo", lambda: through)
        yield line


@contextlib.asynccontextmanager
async def _nobody() -> AsyncIterator[int]:
    """Yield a port nobody listens on."""
    yield 9


@pytest_asyncio.fixture(params=[_nobody, silent, loading])
async def lose_redis(request, settings):
    """Return what takes Redis from this loop: nothing listens there, or nothing that answers."""
    async with request.param() as port:

        async def lose():
            await redis.close()  # a link that was made before would go on answering
            settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
            async with asyncio.timeout(5):
                while request.param is not _nobody and not redis.link().is_up:
                    await asyncio.sleep(0.005)
            with pytest.raises(redis.FAILURES):
                await redis.link().ask("PING")

        yield lose
        await redis.close()


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
        config = serve.config(application, lifespan="off", loop="auto")
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


class Log:
    """What our own settings have written to the log, not what pytest catches."""

    def __init__(self) -> None:
        self._written = io.StringIO()
        handler = logging._handlers["stderr"]  # type: ignore[attr-defined]  # public in 3.12
        self.stop = partial(handler.setStream, handler.setStream(self._written))

    @property
    def text(self) -> str:
        return self._written.getvalue()

    def of(self, request_id: str) -> list[dict[str, Any]]:
        """Return the lines of one request or socket."""
        lines = map(orjson.loads, self.text.splitlines())
        return [line for line in lines if line.get("request_id") == request_id]

    async def whole(self, request_id: str, *, last: str = "Request ended") -> list[dict[str, Any]]:
        """Return them when the last has come, which is after the answer."""
        async with asyncio.timeout(5):
            while last not in [line["message"] for line in self.of(request_id)]:
                await asyncio.sleep(0.005)
        return self.of(request_id)


@pytest.fixture
def log():
    made = Log()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def nursery(django_db_setup, tmp_path_factory):
    """What forks the processes of this worker: imported once, on the database of the tests."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture
def fleet(transactional_db, nursery):
    """Servers and commands as processes of their own, on this test's database and Redis."""
    _forget_health()
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
def _long_running_database():
    """No test depends on when the database of its run was started, which may be a second ago."""
    with pytest.MonkeyPatch.context() as settled:
        for module in (reconciliation, dashboard):
            settled.setattr(module, "RESTART_GRACE_S", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_proxies():
    """A proxy in the environment must not stand between the tests and loopback."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
