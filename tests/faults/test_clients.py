"""Clients that are gone at any byte of the exchange, or fall silent: settled, and only once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
import pytest_asyncio

from llmrouter.gateway import paid, tasks
from tests.factories import gateway
from tests.fakes.proxy import FaultyProxy
from tests.fakes.upstream import DONE, answer, frames, stream
from tests.faults import crowd
from tests.faults.crowd import BODY, PATH, STREAM, Call
from tests.lab import books
from tests.llmrouter.exchanges import closed

pytestmark = pytest.mark.asyncio
STRIDE = 61
"""Bytes from one cut to the next."""


@pytest_asyncio.fixture
async def way(served):
    """A proxy between the clients and us."""
    async with FaultyProxy("127.0.0.1", urlsplit(served.base_url).port or 0) as made:
        yield made


async def nothing_runs():
    async with asyncio.timeout(10):
        while tasks.count():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("is_answer", [False, True])
async def test_gone_at_every_byte(served, upstream, way, monkeypatch, is_answer, streamed):
    """Whether the cut hits the request or the answer, there is one end of it, or no row at all."""
    monkeypatch.setattr(paid, "DRAIN_S", 0.05)
    caller = await gateway.caller(flux=10_000)
    await gateway.route(upstream.base_url)
    upstream.script(stream(frames("a", "b"), pause_s=0.01) if streamed else answer())
    call = Call(f"http://127.0.0.1:{way.port}", caller.key, STREAM if streamed else BODY)
    position = 0
    async with crowd.session() as clients:
        while True:
            cuts = way.cuts
            way.cut_after(position, is_answer=is_answer)
            told = await crowd.ask(clients, call)
            await nothing_runs()
            if way.cuts == cuts:
                break
            assert told.cut or told.status == 0
            position += STRIDE

    assert told.status == 200
    rows = await gateway.requests()
    if not is_answer:
        assert len(rows) == len(upstream.seen) == 1
    assert len(rows) == len(upstream.seen)
    assert {row.state for row in rows} == {"settled"}
    assert await books.charges_of(caller.user_id) == [1] * len(rows)
    await books.are_in_order()


async def test_silent_for_good_in_the_middle_of_a_stream(served, upstream, way):
    """Half-open: nobody says that the client is no more, and the stream ends for nobody."""
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(stream(frames(*["word"] * 4), pause_s=0.05))

    async with crowd.session() as clients:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with clients.post(
                f"http://127.0.0.1:{way.port}{PATH}", data=orjson.dumps(STREAM),
                headers=served.headers(caller.key), timeout=aiohttp.ClientTimeout(total=1),
            ) as got:  # fmt: skip
                await got.content.readuntil(b"\n\n")
                way.silence()
                await got.content.readuntil(DONE)
        (row,) = await closed()

    assert (row.outcome, row.usage_source, row.flux_charged) == ("completed", "reported", 1)
    await books.are_in_order()


async def test_one_byte_at_a_time_is_only_slow(served, upstream, way):
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(stream())
    way.slices = True

    (told,) = await crowd.ask_all([Call(f"http://127.0.0.1:{way.port}", caller.key, STREAM)])

    assert told.text.endswith(DONE)
    await closed()
    await books.are_in_order()
