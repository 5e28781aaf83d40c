"""What the hot path costs: round trips, Redis commands, threads; counts, never seconds."""

from __future__ import annotations

import asyncio
import threading

import pytest
from django.core.signals import request_finished, request_started

from airi_server import asgi
from airi_server.kernel import database, redis
from billing.usage import refusals
from tests.factories import gateway
from tests.fakes.upstream import answer, stream

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


class Counts:
    """Round trips and Redis commands since it was made."""

    def __init__(self):
        self._begin = (database.round_trips, redis.commands_sent)

    def __iter__(self):
        now = (database.round_trips, redis.commands_sent)
        return (b - a for a, b in zip(self._begin, now, strict=True))


async def ready(served, upstream, still, **key_settings):
    """Return a caller whose first request has been made: connections and copies are there."""
    caller = await gateway.caller(flux=100_000, **key_settings)
    await gateway.route(upstream.base_url)
    await served.post(PATH, BODY, caller.key)
    await still()
    return caller


class TestCounts:
    async def test_plain_streamed_and_read(self, served, upstream, still):
        caller = await ready(served, upstream, still)

        counts = Counts()
        await served.post(PATH, BODY, caller.key)
        assert tuple(counts) == (2, 0)

        upstream.script(stream())
        counts = Counts()
        await served.post(PATH, {**BODY, "stream": True}, caller.key)
        assert tuple(counts) == (3, 0)

        counts = Counts()
        await served.get("/api/v1/flux", caller.key)
        assert tuple(counts) == (1, 0)

        counts = Counts()
        await served.post(PATH, BODY, "sk-airi-nobody")
        assert tuple(counts) == (0, 0)

        await served.post(PATH, {**BODY, "n": "x"}, caller.key)
        await served.post(PATH, {**BODY, "model": "unknown"}, caller.key)
        await refusals.close()
        assert tuple(counts) == (2, 0), "each is recorded, after its answer"

    async def test_many_at_once_share_their_round_trips(self, served, upstream, still):
        caller = await ready(served, upstream, still)
        upstream.script(answer(after_s=0.2))

        counts = Counts()
        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(100)))

        trips, commands = counts
        assert {response.status for response in responses} == {200}
        assert trips < 100
        assert commands == 0

    async def test_a_limited_key_waits_for_redis_once(self, served, upstream, still):
        caller = await ready(
            served, upstream, still, requests_per_minute=1000, tokens_per_minute=10**6
        )

        counts = Counts()
        await served.post(PATH, BODY, caller.key)

        trips, commands = counts
        assert trips == 2
        assert commands <= 4  # nobody waits for these


class TestEntry:
    async def test_200_at_once_start_no_thread_and_no_machinery_of_djangos(
        self, served, upstream, still, monkeypatch
    ):
        caller = await ready(served, upstream, still)
        upstream.script(answer(after_s=0.3))
        seen = []
        handler = asgi._http._application

        async def chain(request):
            seen.append(request.path)

        def signalled(**_facts):
            seen.append("signal")

        monkeypatch.setattr(handler, "_middleware_chain", chain)
        request_started.connect(signalled)
        request_finished.connect(signalled)
        before = set(threading.enumerate())
        try:
            sent = [served.post(PATH, BODY, caller.key) for _ in range(150)]
            sent += [served.get("/api/v1/flux", caller.key) for _ in range(50)]
            together = asyncio.gather(*sent)
            started = 0
            while not together.done():
                started = max(started, threading.active_count() - len(before))
                await asyncio.sleep(0.02)
            responses = await together
        finally:
            request_started.disconnect(signalled)
            request_finished.disconnect(signalled)

        assert {response.status for response in responses} == {200}
        assert started == 0
        assert set(threading.enumerate()) <= before
        assert seen == []


class TestIsolation:
    async def test_i24_stalled_upstreams_leave_the_database_to_others(
        self, served, upstream, still, settings
    ):
        """With 50 requests waiting for their upstream, four connections serve everybody else."""
        await database.close()
        settings.HOT_POOL_MAX = 4
        caller = await ready(served, upstream, still)
        upstream.script(answer(after_s=1.5))
        upstream.seen.clear()
        stalled = [asyncio.create_task(served.post(PATH, BODY, caller.key)) for _ in range(50)]
        async with asyncio.timeout(5):
            while len(upstream.seen) < 50:
                await asyncio.sleep(0.01)

        async with asyncio.timeout(0.5):
            balance = await served.get("/api/v1/flux", caller.key)

        assert balance.status == 200
        assert database._pools.get().get_stats()["pool_size"] <= 4
        assert {response.status for response in await asyncio.gather(*stalled)} == {200}
