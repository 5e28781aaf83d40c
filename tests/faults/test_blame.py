"""Whose fault a failure is, between instances: what one has found the others know, and no more."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from airi_server.kernel.threads import in_thread
from llmrouter.configuration import publishing
from llmrouter.routing import health
from tests.factories import gateway
from tests.fakes.upstream import answer, refuse, stream
from tests.faults import crowd
from tests.faults.crowd import Call
from tests.lab import books

pytestmark = pytest.mark.asyncio
NO_REDIS = {"REDIS_URL": "redis://127.0.0.1:9/0"}
FAULTS = (
    refuse(403, message="Input flagged by moderation: violence"),
    refuse(402),
    refuse(500),
    refuse(429, headers={"Retry-After": "600"}),
)


@pytest.fixture
def fleet(fleet):
    """The same as everywhere, but what two callers fail at counts at once."""
    fleet.patches = {**fleet.patches, "llmrouter.routing.scopes.LONGEST_QUIET_S": 0.01}
    return fleet


def asking(text, **fields):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


async def started(fleet, *how):
    """Start instances; one without Redis lives, and says that it is not ready."""
    instances = [fleet.launch(**each) for each in how]
    for each in instances:
        await asyncio.to_thread(each.ready, "/livez")
    return [each.base_url for each in instances]


async def ask(base_url, caller, text="hi", **fields):
    (told,) = await crowd.ask_all([Call(base_url, caller.key, asking(text, **fields))])
    return told.status


async def two_upstreams(upstream):
    """Publish routes to `first`, then to `second`; return where the requests went."""
    places = urlsplit(upstream.base_url)
    urls = [f"http://{places.netloc}/{name}/v1" for name in ("first", "second")]
    await gateway.route(*urls)
    return lambda: [seen.path.split("/")[1] for seen in upstream.seen]


def dead_first():
    async def step(request):
        return await (refuse(401) if request.path.startswith("/first") else answer())(request)

    return step


async def told_of_a_dead_key():
    revision = await in_thread(publishing.current_number)()
    async with asyncio.timeout(10):
        while not await in_thread(health.standings_from_redis)(revision):
            await asyncio.sleep(0.01)


async def test_what_one_instance_has_found_the_other_knows(fleet, upstream):
    callers = [await gateway.caller() for _ in range(3)]
    went = await two_upstreams(upstream)
    one, other = await started(fleet, {}, {})
    for base_url in (one, other):
        assert await ask(base_url, callers[0]) == 200
    upstream.seen.clear()
    upstream.script(dead_first())

    assert await ask(one, callers[1]) == 200
    assert went() == ["first", "second"]
    await told_of_a_dead_key()
    assert await ask(other, callers[2]) == 200

    assert went() == ["first", "second", "second"]
    await books.are_in_order()


async def test_without_redis_each_finds_out_by_itself(fleet, upstream):
    callers = [await gateway.caller() for _ in range(4)]
    went = await two_upstreams(upstream)
    both = await started(fleet, NO_REDIS, NO_REDIS)
    upstream.script(dead_first())

    statuses = [await ask(both[n // 2], caller) for n, caller in enumerate(callers)]

    assert statuses == [200] * 4
    assert went() == ["first", "second", "second"] * 2


@pytest.mark.parametrize("how", [{}, NO_REDIS], ids=["with Redis", "without Redis"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_one_callers_failures_anywhere_cost_nobody_else_an_answer(
    fleet, upstream, how, streamed
):
    culprit, other, new = [await gateway.caller(flux=1000) for _ in range(3)]
    await gateway.route(upstream.base_url)
    good = stream() if streamed else answer()

    async def step(request):
        text = (await request.json())["messages"][0]["content"]
        return await (FAULTS[int(text[1:]) % 4] if text.startswith("p") else good)(request)

    upstream.script(step)
    both = await started(fleet, how, how)

    async def poison():
        for number in range(60):
            await ask(both[number % 2], culprit, f"p{number}", stream=streamed)

    async def innocently():
        fields = {"stream": streamed}
        return [await ask(both[number % 2], other, f"i{number}", **fields) for number in range(30)]

    _, told = await asyncio.gather(poison(), innocently())
    told += [await ask(base_url, new, stream=streamed) for base_url in both]

    assert told == [200] * 32
    await books.are_in_order()


async def test_a_flagged_prompt_in_a_loop_is_refused_alone_though_its_sender_asks_for_more(
    fleet, upstream
):
    """Somebody sends it again and again, as an SDK does; their other requests are served."""
    caller = await gateway.caller(flux=1000)
    await gateway.route(upstream.base_url)

    async def step(request):
        text = (await request.json())["messages"][0]["content"]
        return await (FAULTS[0] if text == "FLAGGED" else answer())(request)

    upstream.script(step)
    (one,) = await started(fleet, {})

    flagged = [await ask(one, caller, "FLAGGED") for _ in range(20)]
    told = [await ask(one, caller, text) for _ in range(15) for text in ("FLAGGED", "innocent")][
        1::2
    ]

    assert set(flagged) <= {400, 403, 502}
    assert told == [200] * 15
