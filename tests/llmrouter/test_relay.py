"""The queue between a stream and its response: every byte once, in order, never too many."""

from __future__ import annotations

import asyncio
import random

import pytest

from llmrouter.completions import stream_buffer
from llmrouter.completions.stream_buffer import StreamAborted, StreamBuffer

pytestmark = pytest.mark.asyncio


async def awhile(chance):
    """Let the others run for some turns, or none."""
    for _ in range(chance.choice((0, 0, 1, 3))):
        await asyncio.sleep(0)


class TestParts:
    @pytest.mark.parametrize("seed", range(20))
    async def test_keep_their_order_whoever_writes_them(self, seed):
        chance, passing = random.Random(seed), StreamBuffer()
        parts = [f"{number} ".encode() for number in range(200)]
        written, by_owner = [], 0

        async def write(part):
            nonlocal by_owner
            await awhile(chance)
            written.append(part)
            by_owner += asyncio.current_task() is owner

        async def own():
            for part in parts:
                await passing.pass_on(part)
                await awhile(chance)
            passing.end()

        owner = asyncio.create_task(own())
        async with asyncio.timeout(10):
            await asyncio.gather(owner, passing.pour(write))

        assert b"".join(written) == b"".join(parts)
        assert 0 < by_owner < len(written)

    async def test_whose_write_was_cut_short_are_left_to_the_reader(self):
        passing, blocked = StreamBuffer(), asyncio.Event()
        written: list[bytes] = []

        async def write(part):
            if asyncio.current_task() is owner:
                blocked.set()
                await asyncio.sleep(60)
            written.append(part)

        reader = asyncio.create_task(passing.pour(write))
        await asyncio.sleep(0)
        owner = asyncio.create_task(passing.pass_on(b"a"))
        await blocked.wait()
        owner.cancel()
        await asyncio.wait({owner})
        passing.put(b"error")
        passing.end(aborted=True)

        with pytest.raises(StreamAborted):
            await reader
        assert b"".join(written) == b"aerror"

    async def test_that_cannot_be_written_are_left_to_the_reader_who_fails(self):
        passing = StreamBuffer()

        async def write(part):
            raise ConnectionResetError

        reader = asyncio.create_task(passing.pour(write))
        await asyncio.sleep(0)
        await passing.pass_on(b"a")

        with pytest.raises(ConnectionResetError):
            await reader

    async def test_wait_for_a_reader_that_is_behind(self, monkeypatch):
        monkeypatch.setattr(stream_buffer, "MAX_QUEUED_BYTES", 4)
        passing = StreamBuffer()
        await passing.pass_on(b"ab")
        owner = asyncio.create_task(passing.pass_on(b"cd"))
        await asyncio.sleep(0)
        assert not owner.done()

        first = await anext(passing.parts())

        assert first == b"abcd"
        await owner

    async def test_are_dropped_once_the_reader_has_left(self):
        passing = StreamBuffer()
        await passing.pass_on(b"a")

        passing.leave()
        await passing.pass_on(b"b")

        assert [part async for part in passing.parts()] == []
