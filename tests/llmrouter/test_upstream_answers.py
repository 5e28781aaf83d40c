"""What the client of upstreams makes of their bytes, however they come."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from airi_server.kernel import hops
from llmrouter.routing.failures import BAD_ANSWER, CONNECT, TIMEOUT, AttemptFailed, Blame
from llmrouter.upstream import client, connections
from llmrouter.upstream.client import Waits
from tests.fakes import raw
from tests.fakes.raw import RawUpstream

pytestmark = pytest.mark.asyncio
BODY = b'{"model":"m"}'
CLOSES = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
OLD = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nhi"
CONTINUE = b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n"
EARLY = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"
HI = raw.response(b"hi")


@pytest_asyncio.fixture(autouse=True)
async def _hung_up():
    yield
    await client.close()


async def post(base_url, body=BODY, *, first_byte_s=5.0, idle_s=5.0, is_stream=False):
    return await client.post(
        base_url + "/chat/completions", authorization="Bearer sk-1", body=body,
        waits=Waits(first_byte_s, idle_s, is_stream),
    )  # fmt: skip


async def asked(base_url, body=BODY, **limits) -> bytes:
    return await client.read(await post(base_url, body, **limits))


async def failure_of(server: RawUpstream, **limits) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as failed:
        await asked(server.base_url, **limits)
    return failed.value


class TestRequest:
    async def test_is_one_line_of_each_and_nothing_of_ours(self):
        heard = bytearray()

        async def listen(reader, writer):
            heard.extend(await reader.readuntil(b"\r\n\r\n"))
            heard.extend(await reader.readexactly(len(BODY)))
            writer.write(HI)

        async with raw.listening(listen) as base_url:
            await asked(base_url + "/a%20b")

        assert heard.decode().split("\r\n") == [
            "POST /v1/a%20b/chat/completions HTTP/1.1",
            f"host: {base_url.split('/')[2]}",
            "content-type: application/json",
            "accept-encoding: identity",
            f"x-airi-hops: {hops.own()}",
            "authorization: Bearer sk-1",
            f"content-length: {len(BODY)}",
            "",
            BODY.decode(),
        ]

    @pytest.mark.parametrize("key", ["a\r\nx: y", "a\nb", "a\0b", "ä"])
    async def test_has_no_header_that_is_two(self, key):
        with pytest.raises(ValueError, match="one line"):
            await client.post(
                "http://127.0.0.1:9/v1", authorization=f"Bearer {key}", body=b"",
                waits=Waits(1, 1, is_stream=False),
            )  # fmt: skip

    async def test_that_is_not_taken_is_given_up(self, monkeypatch):
        """Nothing of it moves: whatever the limit on answers, this one will not come."""
        monkeypatch.setattr(connections, "PROGRESS_S", 0.2)

        async def listen(_reader, _writer):
            await asyncio.Event().wait()

        async with raw.listening(listen) as base_url:
            with pytest.raises(AttemptFailed) as failed:
                await asked(base_url, bytes(64 * 2**20), first_byte_s=60.0)
        assert failed.value.reason == TIMEOUT

    async def test_however_long_arrives_whole(self):
        heard: list[bytes] = []
        long = bytes(range(256)) * 12_000

        async def listen(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            heard.append(await reader.readexactly(len(long)))
            writer.write(HI)

        async with raw.listening(listen) as base_url:
            assert await asked(base_url, long) == b"hi"
        assert heard == [long]

    async def test_that_is_refused_before_it_is_read_is_not_sent_to_its_end(self):
        """Its connection, with half a request in it, serves nobody else."""
        heads = 0

        async def listen(reader, writer):
            nonlocal heads
            heads += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(EARLY)
            await asyncio.sleep(30)

        async with raw.listening(listen) as base_url:
            for _ in range(2):
                response = await post(base_url, bytes(20_000_000))
                assert (response.status, await client.read(response)) == (413, b"no")
        assert heads == 2

    @pytest.mark.parametrize("after_s", [0, 0.2])
    @pytest.mark.parametrize("words", [HI, HI[:-2] + b"x" * 2])
    async def test_that_is_answered_before_it_is_read_is_not_sent_to_its_end(self, words, after_s):
        """By anything that answers without reading: a wrong address, a static page."""

        async def listen(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(after_s)
            writer.write(words)
            await asyncio.sleep(30)

        async with raw.listening(listen) as base_url, asyncio.timeout(10):
            assert await asked(base_url, bytes(20_000_000)) == words[-2:]

    async def test_that_nobody_reads_while_they_talk_does_not_wait_for_ever(self):
        async def listen(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw.stream_head() + raw.piece(b"x" * 2**20))
            await asyncio.sleep(30)

        async with raw.listening(listen) as base_url, asyncio.timeout(10):
            response = await post(base_url, bytes(20_000_000), idle_s=0.2)
            with pytest.raises(AttemptFailed) as failed:
                await client.read(response)
        assert failed.value.reason == TIMEOUT

    @pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", ".test", "h\\x", "\u200b.test"])
    async def test_to_a_name_that_can_be_none_fails_as_one_that_nobody_has(self, host):
        with pytest.raises(AttemptFailed) as failed:
            await asked(f"http://{host}/v1")
        assert failed.value.reason == CONNECT


class TestAnswer:
    @pytest.mark.parametrize(
        ("words", "ending"),
        [
            (HI, "keep"),
            (CLOSES, "close"),
            (OLD, "close"),
            (UNFRAMED, "close"),
            (raw.stream_head() + raw.piece(b"h") + raw.piece(b"i") + b"0\r\n\r\n", "keep"),
            (raw.stream_head() + b"1;a=b\r\nh\r\n1  \r\ni\r\n0\r\nx: y\r\n\r\n", "keep"),
            (CONTINUE * 3 + HI, "keep"),
            (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", "keep"),
        ],
    )
    async def test_is_read_however_it_is_framed_and_cut(self, words, ending):
        async with RawUpstream(raw.says(words, then=ending)) as whole:
            assert await asked(whole.base_url) == b"hi"
        async with RawUpstream(raw.says(*(bytes([b]) for b in words), then=ending)) as dripped:
            assert await asked(dripped.base_url) == b"hi"

    @pytest.mark.parametrize(
        "words",
        [
            raw.response(b"hi", length=3),
            raw.stream_head() + raw.piece(b"hi"),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi",
            raw.stream_head("content-length: 2") + raw.piece(b"hi") + b"0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi!",
            b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n\r\nhi",
            b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nhi",
            b"hi",
        ],
    )
    async def test_that_is_not_whole_or_no_http_is_a_bad_one(self, words):
        async with RawUpstream(raw.says(words, then="close")) as server:
            assert (await failure_of(server)).reason == BAD_ANSWER

    async def test_that_never_comes_is_no_connection(self):
        async with RawUpstream(raw.says(then="close")) as server:
            assert (await failure_of(server)).reason == CONNECT

    @pytest.mark.parametrize(
        ("start", "again"),
        [
            (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nx: ", b"yyyy"),
            (b"", CONTINUE),
            (raw.stream_head() + b"1;", b"x=y;"),
            (raw.stream_head() + raw.piece(b"h") + b"0\r\n", b"x: y\r\n"),
        ],
    )
    async def test_without_an_end_is_cut_off(self, start, again):
        """Whatever is no body is bounded: headers, announcements, extensions and trailers."""

        async def endless(_reader, writer):
            writer.write(start)
            while not writer.is_closing():
                writer.write(again * 100)
                await writer.drain()

        async with RawUpstream(endless) as server:
            assert (await failure_of(server)).reason == BAD_ANSWER

    async def test_has_the_first_of_headers_that_come_twice(self):
        head = b"HTTP/1.1 200 OK\r\nRetry-After: 1\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n"
        async with RawUpstream(raw.says(CONTINUE + head)) as server:
            assert (await post(server.base_url)).headers == {
                "retry-after": "1", "content-length": "0",
            }  # fmt: skip

    async def test_that_broke_off_is_read_up_to_there(self):
        words = raw.stream_head() + raw.piece(b"one") + raw.piece(b"two")
        async with RawUpstream(raw.says(words, then="close")) as server:
            response = await post(server.base_url)
            await asyncio.sleep(0.1)

            assert await client.take(response) == b"onetwo"
            with pytest.raises(AttemptFailed):
                await client.take(response)


class TestTime:
    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_to_the_first_byte_is_bounded(self, is_stream):
        """A plain answer that takes long says nothing about its upstream."""
        async with RawUpstream(raw.says(then="hang")) as server:
            failed = await failure_of(server, first_byte_s=0.2, is_stream=is_stream)
        assert (failed.reason, failed.blame) == (TIMEOUT, Blame.SICK if is_stream else None)

    async def test_between_two_parts_is_bounded(self):
        async with RawUpstream(raw.says(raw.stream_head(), then="hang")) as server:
            async with asyncio.timeout(10):
                failed = await failure_of(server, first_byte_s=60, idle_s=0.2)
        assert (failed.reason, failed.status) == (TIMEOUT, 200)

    async def test_is_that_of_each_request_also_on_a_kept_connection(self):
        async with RawUpstream(raw.says(HI), raw.says(then="hang")) as server:
            await asked(server.base_url, first_byte_s=60, idle_s=60)
            async with asyncio.timeout(10):
                failed = await failure_of(server, first_byte_s=0.2, idle_s=60)
            assert failed.reason == TIMEOUT
            assert server.connections == 1

    async def test_does_not_run_out_while_something_comes(self):
        slow = raw.says(raw.stream_head(), *[raw.piece(b"x")] * 10, b"0\r\n\r\n", pause_s=0.1)
        async with RawUpstream(slow) as server:
            assert await asked(server.base_url, idle_s=0.7) == b"x" * 10

    async def test_does_not_run_out_while_nobody_reads(self):
        """Who reads slowly keeps the upstream waiting, not the other way round."""
        pieces = [raw.piece(b"x" * 65_536)] * 100
        async with RawUpstream(raw.says(raw.stream_head(), *pieces, b"0\r\n\r\n")) as server:
            response = await post(server.base_url, idle_s=0.1)
            await asyncio.sleep(0.5)

            kept = response.size
            body = await client.read(response)

        assert kept < 3 * connections.MAX_UNREAD_BYTES
        assert len(body) == 100 * 65_536
