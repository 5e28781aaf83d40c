"""What a paid request asks of others, counted: round trips, batches, threads. No clock is read."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from django.conf import settings

from airi_server.kernel import database, redis
from tests.factories import gateway
from tests.fakes.upstream import stream

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

PATH = "/v1/chat/completions"
BODY = {"model": "chat-default", "messages": [{"role": "user", "content": "Hello?"}]}
TOGETHER = 64
PAGE = (settings.BASE_DIR / "docs" / "hotpath.md").read_text()


@pytest.mark.parametrize(("streamed", "expected"), [(False, 2), (True, 3)])
async def test_a_request_is_so_many_round_trips_and_no_redis_command(
    served, upstream, still, streamed, expected
):
    caller = await gateway.caller()
    await gateway.route(upstream.base_url)
    if streamed:
        upstream.script(stream())
    await served.post(PATH, {**BODY, "stream": streamed}, caller.key)
    await still()
    trips, commands = database.round_trips, redis.commands_sent

    await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

    assert database.round_trips - trips == expected
    assert redis.commands_sent - commands == 0
    told = re.search(r"completion is (\d) round trips\s+to PostgreSQL and a stream (\d)", PAGE)
    assert told, "docs/hotpath.md says how many"
    assert int(told[2 if streamed else 1]) == expected


async def test_requests_at_once_share_their_round_trips(served, upstream, still):
    caller = await gateway.caller(flux=100_000)
    await gateway.route(upstream.base_url)
    await served.post(PATH, BODY, caller.key)
    await still()
    trips = database.round_trips

    got = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(TOGETHER)))

    assert {response.status for response in got} == {200}
    assert database.round_trips - trips < TOGETHER


async def test_two_hundred_requests_at_once_start_no_thread(served, upstream, still):
    caller = await gateway.caller(flux=100_000)
    await gateway.route(upstream.base_url)
    await served.post(PATH, BODY, caller.key)
    await still()
    before = set(threading.enumerate())

    got = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(200)))

    assert {response.status for response in got} == {200}
    assert set(threading.enumerate()) <= before
