"""Upstreams that break off at any byte, are not there at all, or report nonsense in a stream."""

from __future__ import annotations

import random
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from llmrouter.configuration import tree
from tests.factories import gateway
from tests.fakes import raw
from tests.fakes.proxy import FaultyProxy
from tests.fakes.raw import RawUpstream
from tests.fakes.upstream import DONE, answer, chunk, frames, stream
from tests.faults.crowd import BODY, PATH, STREAM
from tests.lab import books
from tests.llmrouter.exchanges import closed

pytestmark = pytest.mark.asyncio
QUICK = tree.Defaults(per_attempt_timeout_ms=400, idle_timeout_ms=400, full_chain_timeout_ms=3_000)
USAGES = [
    b"null", b"[]", b"0", b'"many"', b"{}", b'{"prompt_tokens":null,"completion_tokens":1}',
    b'{"prompt_tokens":-1,"completion_tokens":-5}', b'{"prompt_tokens":"1","completion_tokens":1}',
    b'{"prompt_tokens":1.5,"completion_tokens":1}', b'{"prompt_tokens":1e18,"completion_tokens":1}',
    b'{"prompt_tokens":1000000000000000000,"completion_tokens":1000000000000000000}',
    b'{"prompt_tokens":true,"completion_tokens":false}',
    b'{"prompt_tokens":NaN,"completion_tokens":1}', b'{"prompt_tokens":1',
]  # fmt: skip


@contextmanager
def black_hole():
    """Yield a port whose connections are never made: nobody takes them and the queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_nobody_there_and_a_black_hole_are_the_next_ones_turn(served, upstream):
    caller = await gateway.caller(flux=100)
    with black_hole() as hole:
        for port in (free_port(), hole):
            away = f"http://127.0.0.1:{port}/v1"
            await gateway.places((away, 1), (upstream.base_url, 1), defaults=QUICK, timeout_ms=400)
            assert (await served.post(PATH, BODY, caller.key)).status == 200
            await gateway.places((away, 1), defaults=QUICK, timeout_ms=400)
            assert (await served.post(PATH, BODY, caller.key)).status == 504

    rows = await closed(4)
    reasons = [[failure["reason"] for failure in row.failures or ()] for row in rows]
    assert reasons == [["connect"]] * 4
    assert await books.charges_of(caller.user_id) == [1, 1]
    await books.are_in_order()


@pytest.mark.parametrize("streamed", [False, True])
async def test_reset_at_every_byte_of_its_answer(served, upstream, streamed):
    """Before the first frame the next upstream answers; after it the client sees it break."""
    caller = await gateway.caller(flux=10_000)
    upstream.script(stream(pause_s=0.005) if streamed else answer())
    parts = urlsplit(upstream.base_url)
    outcomes: list[tuple[int, str | None, bool, int]] = []
    async with FaultyProxy("127.0.0.1", parts.port or 0) as proxy:
        broken = f"http://127.0.0.1:{proxy.port}/v1"
        position = 0
        while True:
            # Published anew, so that no key rests and no connection is a kept one.
            await gateway.places((broken, 1), (upstream.base_url, 1), timeout_ms=3000 + position)
            cuts = proxy.cuts
            proxy.cut_after(position, is_answer=True)
            got = await served.post(PATH, STREAM if streamed else BODY, caller.key)
            row = (await closed(len(outcomes) + 1))[-1]
            assert got.status == 200
            outcomes.append((row.attempts, row.outcome, got.cut, row.flux_charged))
            if proxy.cuts == cuts:
                break
            position += 23
        proxy.keep()

    seen = {outcome[:3] for outcome in outcomes}
    expected = {(2, "completed", False), (1, "completed", False)}
    assert seen == (expected | {(1, "upstream_broken", True)} if streamed else expected)
    assert await books.charges_of(caller.user_id) == [each[3] for each in outcomes]
    await books.are_in_order()


async def test_one_byte_at_a_time(served, upstream):
    caller = await gateway.caller(flux=100)
    upstream.script(stream())
    parts = urlsplit(upstream.base_url)
    async with FaultyProxy("127.0.0.1", parts.port or 0) as proxy:
        proxy.slices = True
        await gateway.route(f"http://127.0.0.1:{proxy.port}/v1")

        got = await served.post(PATH, STREAM, caller.key)

    assert got.body.endswith(DONE)
    assert [row.usage_source for row in await closed()] == ["reported"]
    await books.are_in_order()


async def test_usage_that_makes_no_sense_in_a_stream_is_an_estimate_and_no_error(served, upstream):
    caller = await gateway.caller(flux=10_000)
    await gateway.route(upstream.base_url)
    nonsense = [b'data: {"choices":[],"usage":' + usage + b"}\n\n" for usage in USAGES]
    for number, report in enumerate(nonsense, start=1):
        upstream.script(stream([chunk("word"), chunk("", finish="stop"), report, report, DONE]))

        got = await served.post(PATH, STREAM, caller.key)

        assert (got.status, got.cut) == (200, False), report
        assert got.body.endswith(DONE), report
        row = (await closed(number))[-1]
        assert row.outcome == "completed", report
        assert row.usage_source in ("estimated", "completed", "reported"), report
        assert 1 <= row.flux_charged <= 5, report
    await books.are_in_order()


async def test_streams_with_any_byte_wrong_are_settled_and_never_a_500(served):
    """200 streams, each mangled at random places; the seed says which."""
    dice = random.Random(20260302)
    caller = await gateway.caller(flux=100_000)
    whole = b"".join(frames(*["word"] * 3))

    def mangled():
        body = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(body))
            body[at : at + dice.choice([0, 1, 30])] = dice.randbytes(dice.choice([0, 1, 7]))
        return raw.stream_head() + raw.piece(bytes(body) or b"\n") + b"0\r\n\r\n"

    async with RawUpstream(*(raw.says(mangled()) for _ in range(200))) as upstream:
        await gateway.route(upstream.base_url)
        answers = [await served.post(PATH, STREAM, caller.key) for _ in range(200)]

    assert {got.status for got in answers} <= {200, 502, 503}
    assert sum(got.status == 200 for got in answers) > 100
    assert any(got.cut for got in answers)
    for got in answers:
        # What does not end as a stream ends is not to be taken for a whole one.
        assert got.cut or got.status != 200 or b"[DONE]" in got.body or b"stop" in got.body
    await books.are_in_order()
