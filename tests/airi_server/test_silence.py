"""Connections that stay open and say nothing: PostgreSQL's and Redis's. Nobody waits for long."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
import pytest_asyncio
from psycopg_pool import PoolTimeout

from airi_server.kernel import database, redis, silence
from tests.factories import gateway
from tests.fakes.raw import silent
from tests.fakes.upstream import answer

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BOUND_S = silence.QUIET_S + silence.ASKED_S + 2
"""What the first who meet it wait at most, with room for a slow machine."""
PATIENCE_S = 20
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


class TestSilentConnections:
    """Those made so far lead nowhere, as behind a firewall that has forgotten them."""

    async def test_hold_up_nobody_for_long_and_lose_no_settlement(
        self, database_line, served, upstream, monkeypatch
    ):
        monkeypatch.setattr(silence, "QUIET_S", 0.3)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        assert (await served.post(PATH, BODY, caller.key)).status == 200
        upstream.seen.clear()
        upstream.script(answer(after_s=0.5), answer())
        settling = asyncio.create_task(served.post(PATH, BODY, caller.key))
        async with asyncio.timeout(5):
            while not upstream.seen:
                await asyncio.sleep(0.01)

        database_line.silence()
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(
                served.post(PATH, BODY, caller.key),
                served.get("/api/v1/flux", caller.key),
                settling,
            )

        assert [each.status for each in answers] == [200, 200, 200]
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (100 - 3, 0)

    async def test_are_told_from_statements_that_take_their_time(
        self, database_line, hot, monkeypatch
    ):
        monkeypatch.setattr(silence, "QUIET_S", 0.05)
        monkeypatch.setattr(silence, "AGAIN_S", 0.05)
        asked = []
        at_work = silence.Silence._at_work

        async def counted(self, pids):
            asked.append(await at_work(self, pids))
            return asked[-1]

        monkeypatch.setattr(silence.Silence, "_at_work", counted)

        assert await database.fetch("SELECT 7 FROM pg_sleep(1)", {}) == [(7,)]
        assert len(asked) > 1
        assert all(asked)

    async def test_of_statements_beyond_every_time_out_are_hung_up(self, hot, monkeypatch):
        monkeypatch.setattr(silence, "QUIET_S", 0.05)
        monkeypatch.setattr(silence, "LONGEST_S", 0.3)
        monkeypatch.setattr(database, "LOST_S", 0)

        async with asyncio.timeout(PATIENCE_S), database.connection() as lent:
            with pytest.raises(psycopg.OperationalError) as lost:
                await database.execute(lent, "SELECT pg_sleep(9)", {})

        assert database.was_lost(lost.value)


class TestAsking:
    async def test_goes_on_whatever_has_become_of_the_one_before(self, hot):
        database._silences.get().is_on = True

        with pytest.raises(PoolTimeout):
            await database.fetch("SELECT 7", {})

        async with asyncio.timeout(PATIENCE_S):
            while database._silences.get().is_on:
                await asyncio.sleep(0.01)
        assert await database.fetch("SELECT 7", {}) == [(7,)]

    @pytest.mark.parametrize(
        ("said", "is_on"), [("FATAL:  sorry, too many clients already", False), ("refused", True)]
    )
    async def test_whoever_refuses_a_session_is_there(self, hot, monkeypatch, said, is_on):
        async def refuse(*_):
            raise psycopg.OperationalError(said)

        monkeypatch.setattr(silence, "_fetch", refuse)
        watch = database._silences.get()

        await watch._ask_once()

        assert watch.is_on is is_on


class TestSilentDatabase:
    """Nothing gets through, on new connections neither, though they can be made."""

    @pytest_asyncio.fixture
    async def black_hole(self, database_line, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        assert (await served.post(PATH, BODY, caller.key)).status == 200
        upstream.seen.clear()
        database_line.swallow()
        return caller

    @pytest.mark.parametrize("path", [PATH, "/api/v1/openai/chat/completions"])
    async def test_refuses_in_time_and_without_an_upstream_call(
        self, black_hole, served, upstream, path
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()

        refused = await served.post(path, BODY, black_hole.key)
        first = loop.time() - began
        again = [await served.post(path, BODY, black_hole.key) for _ in range(20)]

        assert first < BOUND_S
        # Who comes later does not wait for it at all.
        assert loop.time() - began - first < 2
        for each in (refused, *again):
            assert (each.status, each.headers["Retry-After"]) == (503, "1")
            assert each.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert upstream.seen == []

    async def test_is_over_by_itself_and_nothing_is_charged_twice(
        self, black_hole, database_line, served
    ):
        headers = {"Idempotency-Key": "one"}
        assert (await served.post(PATH, BODY, black_hole.key, **headers)).status == 503

        database_line.mend()

        async with asyncio.timeout(PATIENCE_S):
            while (await served.post(PATH, BODY, black_hole.key, **headers)).status != 200:
                await asyncio.sleep(0.05)
        account = await gateway.account(black_hole.user_id)
        assert (account.balance, account.held) == (100 - 2, 0)

    async def test_loses_no_settlement(self, database_line, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        assert (await served.post(PATH, BODY, caller.key)).status == 200
        upstream.seen.clear()
        upstream.script(answer(after_s=0.3))
        settling = asyncio.create_task(served.post(PATH, BODY, caller.key))
        async with asyncio.timeout(5):
            while not upstream.seen:
                await asyncio.sleep(0.01)
        database_line.swallow()
        async with asyncio.timeout(PATIENCE_S):
            while not database._silences.get().is_on:
                await asyncio.sleep(0.05)
        assert not settling.done()

        database_line.mend()

        async with asyncio.timeout(PATIENCE_S):
            assert (await settling).status == 200
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (100 - 2, 0)


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
