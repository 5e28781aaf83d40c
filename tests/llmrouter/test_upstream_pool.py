"""Which connections to upstreams are kept, and for whom."""

from __future__ import annotations

import asyncio
import socket

import aiohappyeyeballs
import pytest
import pytest_asyncio

from llmrouter.routing.failures import CONNECT, AttemptFailed
from llmrouter.upstream import client, pool
from tests.fakes import raw
from tests.fakes.raw import RawUpstream
from tests.llmrouter.test_upstream_answers import CLOSES, HI, OLD, asked, post

TWO_AT_ONCE = HI + raw.response(b"not asked for")


@pytest_asyncio.fixture(autouse=True)
async def _hung_up():
    yield
    await client.close()


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
class TestKept:
    async def test_serves_the_next_request(self):
        async with RawUpstream(raw.says(HI)) as server:
            for _ in range(5):
                assert await asked(server.base_url) == b"hi"
            assert (server.connections, server.requests) == (1, 5)

    async def test_is_told_its_own_answer_however_many_ask(self):
        """Somebody may have a connection before its last user woke up."""

        async def echo(_reader, writer):
            writer.write(HI)

        async with RawUpstream(echo) as server:

            async def again_and_again():
                for _ in range(40):
                    assert await asked(server.base_url) == b"hi"

            async with asyncio.timeout(30):
                await asyncio.gather(*(again_and_again() for _ in range(20)))
            assert server.requests == 800
            assert server.connections <= 20

    async def test_is_not_hung_up_on_by_who_used_it_before(self):
        """A user that is cancelled as the answer arrives does not end the next one's."""
        answer_now = asyncio.Event()

        async def waits(_reader, writer):
            await answer_now.wait()
            writer.write(HI)

        async with RawUpstream(raw.says(HI), waits, raw.says(HI)) as server:
            await asked(server.base_url)
            first = asyncio.create_task(post(server.base_url))
            await until(lambda: server.requests == 2)
            connection = next(iter(client._pools.get()._open))
            kept = connection._keep
            next_one: list[asyncio.Task[bytes]] = []

            def keep_and_hand_on(mine):
                kept(mine)
                next_one.append(asyncio.create_task(asked(server.base_url)))
                asyncio.get_running_loop().call_soon(first.cancel)

            connection._keep = keep_and_hand_on
            answer_now.set()

            with pytest.raises(asyncio.CancelledError):
                await first
            connection._keep = kept
            assert await next_one[0] == b"hi"
            assert server.connections == 1

    @pytest.mark.parametrize("words", [CLOSES, OLD, TWO_AT_ONCE])
    async def test_is_not_one_whose_next_answer_could_be_another(self, words):
        async with RawUpstream(raw.says(words), raw.says(HI)) as server:
            assert await asked(server.base_url) == b"hi"
            assert await asked(server.base_url) == b"hi"
            assert server.connections == 2

    async def test_ends_when_the_upstream_says_something_unasked(self):
        speak = asyncio.Event()

        async def talkative(_reader, writer):
            writer.write(HI)
            await speak.wait()
            writer.write(raw.response(b"not asked for"))

        async with RawUpstream(talkative, raw.says(HI)) as server:
            assert await asked(server.base_url) == b"hi"
            speak.set()
            await until(lambda: not client._pools.get()._open)
            assert await asked(server.base_url) == b"hi"

    async def test_is_not_one_that_has_something_unasked_to_say(self):
        """It stands in the socket unread while the loop is busy, and would be the next answer."""

        async def talkative(_reader, writer):
            writer.write(HI)
            await asyncio.sleep(0.05)
            writer.write(raw.response(b"not asked for"))

        async with RawUpstream(talkative, raw.says(HI)) as server:
            assert await asked(server.base_url) == b"hi"
            connection = next(iter(client._pools.get()._open))
            assert connection._transport is not None
            connection._transport.pause_reading()  # as a loop that does not come to read
            await asyncio.sleep(0.2)

            assert await asked(server.base_url) == b"hi"
            assert server.connections == 2

    async def test_is_not_one_whose_request_is_not_read(self, monkeypatch):
        """What was not sent of it would stand before the next one."""
        dial = aiohappyeyeballs.start_connection

        async def narrow(*args, **kwargs):
            sock = await dial(*args, **kwargs)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            return sock

        monkeypatch.setattr(pool, "start_connection", narrow)

        async def listen(reader, writer):
            incoming = writer.transport.get_extra_info("socket")
            incoming.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            writer.write(HI)
            await asyncio.sleep(30)

        async with raw.listening(listen) as base_url, asyncio.timeout(10):
            for _ in range(2):
                assert await asked(base_url, bytes(250_000), first_byte_s=2) == b"hi"

    async def test_that_dies_of_a_request_takes_no_other_with_it(self):
        """One that ends at once was closed before; the request is sent once more, not to each."""

        async def dies(_reader, writer):
            writer.close()

        async with RawUpstream(*[raw.says(HI)] * 5, dies) as server:
            responses = await asyncio.gather(*(post(server.base_url) for _ in range(5)))
            assert [await client.read(each) for each in responses] == [b"hi"] * 5
            assert server.connections == 5

            with pytest.raises(AttemptFailed) as failed:
                await asked(server.base_url)
            assert failed.value.reason == CONNECT
            assert server.requests == 5 + 2

    async def test_that_dies_at_work_is_not_asked_again(self, monkeypatch):
        monkeypatch.setattr(client, "RACE_S", 0.1)

        async def works_and_dies(_reader, writer):
            await asyncio.sleep(0.4)
            writer.close()

        async with RawUpstream(raw.says(HI), works_and_dies) as server:
            await asked(server.base_url)
            with pytest.raises(AttemptFailed):
                await asked(server.base_url)
            assert server.requests == 2

    async def test_is_not_one_that_was_left_half_way(self):
        endless = raw.says(raw.stream_head() + raw.piece(b"x"), then="hang")
        async with RawUpstream(endless, raw.says(HI)) as server:
            response = await post(server.base_url)
            assert await client.take(response) == b"x"
            response.close()

            assert await asked(server.base_url) == b"hi"
            assert server.connections == 2

    async def test_is_hung_up_on_when_nobody_asks(self, monkeypatch):
        monkeypatch.setattr(pool, "KEEP_S", 0.2)
        async with RawUpstream(raw.says(HI)) as server:
            await asked(server.base_url)
            open_ones = client._pools.get()._open
            assert len(open_ones) == 1
            await until(lambda: not open_ones)

            assert await asked(server.base_url) == b"hi"
            assert server.connections == 2

    async def test_is_one_for_each_place(self):
        async with RawUpstream(raw.says(HI)) as one, RawUpstream(raw.says(HI)) as two:
            for server in (one, two, one, two):
                await asked(server.base_url)
            assert (one.connections, two.connections) == (1, 1)

    async def test_is_closed_with_whoever_waits(self):
        async with RawUpstream(raw.says(then="hang")) as server:
            waiting = asyncio.create_task(post(server.base_url))
            await until(lambda: server.requests == 1)
            await client.close()
            with pytest.raises(AttemptFailed):
                await waiting
