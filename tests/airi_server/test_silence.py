"""Connections that stay open and say nothing: PostgreSQL's and Redis's. Nobody waits for long."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
import pytest_asyncio

from airi_server.kernel import database, redis
from tests.factories import gateway
from tests.fakes.proxy import SilentProxy
from tests.fakes.raw import silent
from tests.fakes.upstream import answer

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


@pytest_asyncio.fixture
async def proxy(transactional_db, monkeypatch):
    """The hot path's way to PostgreSQL, through a proxy."""
    conninfo = database._conninfo()
    target = psycopg.conninfo.conninfo_to_dict(conninfo)
    async with SilentProxy(str(target["host"]), int(target["port"] or 5432)) as made:
        through = psycopg.conninfo.make_conninfo(conninfo, host="127.0.0.1", port=str(made.port))
        monkeypatch.setattr(database, "_conninfo", lambda: through)
        yield made


class TestSilentDatabase:
    async def test_holds_up_nobody_for_long_and_loses_no_settlement(
        self, proxy, served, upstream, monkeypatch
    ):
        monkeypatch.setattr(database, "ANSWER_S", 0.3)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        assert (await served.post(PATH, BODY, caller.key)).status == 200
        upstream.seen.clear()
        upstream.script(answer(after_s=0.5), answer())
        settling = asyncio.create_task(served.post(PATH, BODY, caller.key))
        async with asyncio.timeout(5):
            while not upstream.seen:
                await asyncio.sleep(0.01)

        proxy.silence()
        # The driver adds up to five seconds of its own to a statement that was given up.
        async with asyncio.timeout(13):
            opening, reading, settled = await asyncio.gather(
                served.post(PATH, BODY, caller.key),
                served.get("/api/v1/flux", caller.key),
                settling,
            )

        assert settled.status == 200
        # Served if the next connection of the pool was not a silent one as well.
        assert {opening.status, reading.status} <= {200, 503}
        assert opening.status == 200 or opening.headers["Retry-After"] == "1"
        async with asyncio.timeout(5):
            assert (await served.post(PATH, BODY, caller.key)).status == 200
            assert (await served.get("/api/v1/flux", caller.key)).status == 200
        account = await gateway.account(caller.user_id)
        paid = 3 + (opening.status == 200)
        assert (account.balance, account.held) == (100 - paid, 0)


class TestSilentRedis:
    async def test_is_dropped_and_then_waited_for_by_nobody(
        self, served, upstream, settings, monkeypatch
    ):
        monkeypatch.setattr(redis, "SILENT_S", 0.2)
        monkeypatch.setattr(redis, "PAUSES_S", (0.05, 60.0))
        caller = await gateway.caller(requests_per_minute=1000, parallel_requests=5)
        await gateway.route(upstream.base_url)
        async with silent() as port:
            await redis.close()
            settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
            async with asyncio.timeout(2):
                while not redis.link().is_up:
                    await asyncio.sleep(0.005)

            async with asyncio.timeout(10):
                while redis.link()._attempt < 2:
                    assert (await served.post(PATH, BODY, caller.key)).status == 200
                    await asyncio.sleep(0.01)
            sent = redis.commands_sent
            after = [await served.post(PATH, BODY, caller.key) for _ in range(5)]

            assert {response.status for response in after} == {200}
            assert redis.commands_sent == sent
            await redis.close()

    async def test_one_that_answers_is_kept_however_long_nobody_asked(self, hot, monkeypatch):
        monkeypatch.setattr(redis, "SILENT_S", 0.05)
        async with asyncio.timeout(5):
            while not redis.link().is_up:
                await asyncio.sleep(0.005)
        transport = redis.link()._transport
        for _ in range(3):
            assert await asyncio.wait_for(redis.link().send("PING"), 5) == b"PONG"
            await asyncio.sleep(0.1)

        assert redis.link()._transport is transport
