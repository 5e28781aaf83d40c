"""Probes."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
import pytest

from airi_server.kernel import database, redis
from airi_server.web import health

pytestmark = pytest.mark.asyncio

BOUND_S = 1.0 + 0.5
"""What a probe may take, and what a busy machine adds."""
PATIENCE_S = 15
"""Far below the minute for which the silent ones of these tests stay silent."""


class TestLivez:
    async def test_touches_nothing(self, served, still):
        await still()
        trips, commands = database.round_trips, redis.commands_sent

        answered = await served.get("/livez")

        assert (answered.status, answered.json()) == (200, {"status": "live"})
        assert (database.round_trips, redis.commands_sent) == (trips, commands)


class TestReadyz:
    async def test_is_ready_when_both_answer(self, served):
        answered = await served.get("/readyz")

        assert answered.status == 200
        assert answered.json() == {"status": "ready", "checks": {"db": "ok", "redis": "ok"}}

    async def test_case_155_is_without_redis_and_says_so(self, served, lose_redis):
        """Redis is everybody's: a balancer would take out every instance at once."""
        await lose_redis()

        answered, took_s = await self.probe(served)

        assert answered.status == 200
        assert answered.json() == {"status": "ready", "checks": {"db": "ok", "redis": "fail"}}
        assert took_s < BOUND_S

    @pytest.mark.parametrize("how", ["cut", "silence", "swallow"])
    async def test_is_not_without_the_database_and_says_so_in_time(
        self, database_line, served, how
    ):
        async with contextlib.AsyncExitStack() as lent:  # the pool has more than one to try
            for _ in range(4):
                await lent.enter_async_context(database.connection())
        assert (await served.get("/readyz")).status == 200
        getattr(database_line, how)()

        for _ in range(1 if how == "silence" else 4):
            answered, took_s = await self.probe(served)

            assert answered.status == 503
            assert answered.json()["checks"] == {"db": "fail", "redis": "ok"}
            assert answered.json()["status"] == "not_ready"
            assert took_s < BOUND_S

    async def probe(self, served):
        began = time.monotonic()
        answered = await served.get("/readyz")
        return answered, time.monotonic() - began

    async def test_changes_are_one_line_each(self, database_line, served, log, monkeypatch):
        monkeypatch.setattr(health.Told, "checks", {"db": "ok", "redis": "ok"})
        database_line.cut()
        for _ in range(3):
            await served.get("/readyz")
        database_line.mend()
        async with asyncio.timeout(PATIENCE_S):
            while (await served.get("/readyz")).status != 200:
                await asyncio.sleep(0.05)

        lines = [line for line in map(orjson.loads, log.text.splitlines()) if "db" in line]
        assert [line["db"] for line in lines] == ["fail", "ok"]
        assert "Service Unavailable" not in log.text

    @pytest.mark.parametrize("how", ["cut", "silence", "swallow"])
    async def test_is_again_with_the_database(self, database_line, served, how):
        assert (await served.get("/readyz")).status == 200
        getattr(database_line, how)()
        assert (await served.get("/readyz")).status == 503

        database_line.mend()

        async with asyncio.timeout(PATIENCE_S):
            while (await served.get("/readyz")).status != 200:
                await asyncio.sleep(0.05)

    async def test_is_not_while_draining(self, served, monkeypatch):
        monkeypatch.setattr(health.Draining, "is_on", True)

        answered = await served.get("/readyz")

        assert (answered.status, answered.json()["status"]) == (503, "not_ready")
