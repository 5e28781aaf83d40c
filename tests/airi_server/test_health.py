"""Probes and the root."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from airi_server import health
from airi_server.kernel import database, redis
from tests.fakes.raw import silent

pytestmark = pytest.mark.asyncio

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

    async def test_case_155_is_not_when_redis_is_down_or_silent(self, served, settings):
        async with silent() as port:
            for away in (9, port):
                await redis.close()
                settings.REDIS_URL = f"redis://127.0.0.1:{away}/0"

                async with asyncio.timeout(PATIENCE_S):
                    answered = await served.get("/readyz")

                assert answered.status == 503
                assert answered.json() == {
                    "status": "not_ready", "checks": {"db": "ok", "redis": "fail"},
                }  # fmt: skip
            await redis.close()

    async def test_is_not_when_the_database_is_down_or_silent(self, served, monkeypatch):
        async def down(*_args):
            raise psycopg.OperationalError("refused")

        async def silent(*_args):
            await asyncio.sleep(60)

        for fetch in (down, silent):
            monkeypatch.setattr(database, "fetch", fetch)

            async with asyncio.timeout(PATIENCE_S):
                answered = await served.get("/readyz")

            assert answered.status == 503
            assert answered.json()["checks"] == {"db": "fail", "redis": "ok"}

    async def test_is_not_while_draining(self, served, monkeypatch):
        monkeypatch.setattr(health.Draining, "is_on", True)

        answered = await served.get("/readyz")

        assert (answered.status, answered.json()["status"]) == (503, "not_ready")


class TestRoot:
    async def test_says_what_this_is(self, served):
        answered = await served.get("/")

        assert answered.status == 200
        assert answered.json()["service"] == "airi-api"
        assert answered.json()["docs"] == "https://airi.moeru.ai/docs"
        assert answered.json()["ui"] == "https://airi.moeru.ai"
