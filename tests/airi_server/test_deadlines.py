"""Connections without a request under way end, whatever bytes come; and so do drips."""

from __future__ import annotations

import asyncio
import socket
import time
from urllib.parse import urlsplit

import pytest

from airi_server.web import bodies, http_protocols, serve
from tests.airi_server.lines import INNER, Line, line_to, request
from tests.factories import gateway
from tests.fakes.upstream import answer, completion

pytestmark = pytest.mark.asyncio
SHORT_S = 0.3
LONG_S = 5.0
"""Nothing here may take so long; what is bounded by `SHORT_S` ends far earlier."""
BLANKS = (b"", b"\r\n", b"\n", b"\r", b"\r\n" * 5_000)


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    monkeypatch.setattr(http_protocols, "HEAD_S", SHORT_S)
    monkeypatch.setattr(http_protocols, "DISCARD_S", SHORT_S)
    monkeypatch.setattr(http_protocols, "DISCARD_BODY_S", SHORT_S)
    monkeypatch.setattr(bodies, "TIMEOUT_S", SHORT_S)


@pytest.fixture
def impatient(monkeypatch):
    """Connections are kept only for a moment between requests."""
    monkeypatch.setitem(serve.CONNECTIONS, "timeout_keep_alive", SHORT_S)


async def drip(line: Line, piece: bytes) -> float:
    """Send again and again until the server has ended the connection; return how long it took."""
    began = time.monotonic()
    ending = asyncio.create_task(line.end(within_s=LONG_S))
    while not ending.done():
        await line.send(piece)
        await asyncio.sleep(0.01)
    await ending
    return time.monotonic() - began


class TestBetweenRequests:
    @pytest.mark.parametrize("piece", BLANKS, ids=repr)
    async def test_line_ends_do_not_keep_a_connection(self, impatient, served, piece):
        async with line_to(served.base_url) as line:
            for _ in range(2):
                await line.send(request("GET", "/nothing"))
                assert await line.answer() is not None

            assert await drip(line, piece) < LONG_S

    @pytest.mark.parametrize("piece", BLANKS, ids=repr)
    async def test_nor_one_that_has_not_asked_yet(self, served, piece):
        async with line_to(served.base_url) as line:
            assert await drip(line, piece) < LONG_S

    async def test_one_that_has_sent_nothing_ends_without_an_answer(self, served):
        """A browser connects ahead, and would take it for the answer to what it sends just then."""
        async with line_to(served.base_url) as line:
            assert await line.end(within_s=LONG_S) == b""

    async def test_a_request_in_time_is_served_after_them(self, served):
        async with line_to(served.base_url) as line:
            for _ in range(3):
                await line.send(b"\r\n", b"\n", b"\r\n", request("GET", "/nothing"))
                answered = await line.answer()
                assert answered is not None
                assert answered.status == 404

    async def test_the_next_head_has_a_deadline_of_its_own(self, served):
        async with line_to(served.base_url) as line:
            await line.send(request("GET", "/nothing"))
            assert await line.answer() is not None
            await line.send(b"GET /noth")
            refused = await line.answer()

            assert refused is not None
            assert refused.status == 400
            assert await line.end() == b""


PATHS = [
    "/v1/chat/completions", "/v1/nothing", "/api/v1/flux", "/api/v1/keys", "/admin/login/",
    "/admin/", "/static/none.css", "/app/chat", "/livez", "/nothing", "/ws/chat",
]  # fmt: skip
FRAMINGS = [
    ("Content-Length: 100000", b"x"),
    ("Transfer-Encoding: chunked", b"1\r\nx\r\n"),
    ("Transfer-Encoding: chunked", b""),
]


class TestDrips:
    @pytest.mark.parametrize(
        "begun",
        [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"GET / HTTP/1.1\r\nHost: x\r\n"],
        ids=repr,
    )
    async def test_of_a_head_are_not_waited_for(self, served, begun):
        async with line_to(served.base_url) as line:
            await line.send(begun)
            # Each byte goes on with what is there: no pause is long enough to be noticed.
            piece = b"A: b\r\n" if begun.endswith(b"\r\n") else b"G" if not begun else b"b"

            assert await drip(line, piece) < LONG_S

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("is_known", [True, False])
    async def test_of_a_body_are_not_waited_for(self, served, method, is_known):
        caller = await gateway.caller()
        key = caller.key if is_known else "nobody"

        async def seconds(path, framing, piece):
            async with line_to(served.base_url) as line:
                await line.send(request(method, path, f"Authorization: Bearer {key}", framing))
                return await drip(line, piece)

        for path in PATHS:
            took = await asyncio.gather(*(seconds(path, *each) for each in FRAMINGS))
            assert max(took) < LONG_S, path

    async def test_of_a_body_that_nobody_asked_for_end_with_it(self, served):
        """An answer before its body: the body is read for a moment, and then the next request."""
        origin = "Origin: http://localhost:5173"
        head = request("OPTIONS", "/api/v1/flux", origin, f"Content-Length: {len(INNER)}")
        async with line_to(served.base_url) as line:
            for _ in range(3):
                await line.send(head)
                first = await line.answer("OPTIONS")
                await line.send(INNER[:9], INNER[9:] + request("GET", "/following"))
                second = await line.answer()

                assert first is not None
                assert second is not None
                assert (first.status, second.status) == (204, 404)
                assert b"GET /following" in second.body

    async def test_of_such_a_body_end_with_the_connection(self, served):
        origin = "Origin: http://localhost:5173"
        head = request("OPTIONS", "/api/v1/flux", origin, "Content-Length: 100000")
        async with line_to(served.base_url) as line:
            await line.send(head)
            answered = await line.answer("OPTIONS")

            assert answered is not None
            assert answered.status == 204
            assert await drip(line, b"x") < LONG_S


class TestNotReading:
    @pytest.mark.parametrize("kept", ["close", "keep-alive"])
    async def test_the_end_of_an_answer_is_given_up_at_some_time(
        self, impatient, served, upstream, monkeypatch, kept
    ):
        """Too little is left for the transport to call itself full, and it is never taken."""
        monkeypatch.setattr(http_protocols, "UNREAD_S", SHORT_S)
        lost = asyncio.get_running_loop().create_future()
        made, ended = (
            http_protocols.HttpProtocol.connection_made,
            http_protocols.HttpProtocol.connection_lost,
        )

        def connection_made(self, transport):
            transport.set_write_buffer_limits(high=10**9)
            made(self, transport)

        def connection_lost(self, exc):
            ended(self, exc)
            lost.set_result(None)

        monkeypatch.setattr(http_protocols.HttpProtocol, "connection_made", connection_made)
        monkeypatch.setattr(http_protocols.HttpProtocol, "connection_lost", connection_lost)
        caller = await gateway.caller(flux=10_000)
        await gateway.route(upstream.base_url)
        upstream.script(answer(completion("x" * 12_000_000)))
        body = b'{"messages":[]}'
        key = f"Authorization: Bearer {caller.key}"
        place = urlsplit(served.base_url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (place.hostname, place.port))
            asked = request("POST", "/v1/chat/completions", key, f"Connection: {kept}", body=body)
            await loop.sock_sendall(client, asked)
            async with asyncio.timeout(LONG_S):
                await lost
