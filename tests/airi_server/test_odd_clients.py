"""Clients that send a second request into a running answer, or read slowly: noticed, or served."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import orjson
import pytest

from airi_server.web import http_protocols
from tests.airi_server.test_entry import head_of, open_to
from tests.factories import gateway
from tests.fakes.upstream import answer, chunk, completion, stream
from tests.llmrouter.exchanges import closed

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
PROBE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws/chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def ask(key, *, streamed):
    body = orjson.dumps({"stream": streamed, "messages": MESSAGES})
    return head_of(PATH, key, f"content-length: {len(body)}") + body


def answering(others):
    return [task for task in asyncio.all_tasks() - others if "run_asgi" in repr(task)]


class TestSecondRequest:
    async def test_does_not_hide_that_the_client_left(self, served, upstream, caplog):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("word")] * 3, then="hang"))
        others = asyncio.all_tasks()
        reader, writer = await open_to(served)

        writer.write(ask(caller.key, streamed=True) + PROBE)
        await reader.readuntil(b"word")
        writer.transport.abort()
        (row,) = await closed()

        assert (row.state, row.outcome) == ("settled", "client_gone")
        assert upstream.aborted == 1
        async with asyncio.timeout(5):
            while answering(others):
                await asyncio.sleep(0.02)
        assert "Exception in callback" not in caplog.text

    async def test_that_asks_for_a_socket_ends_the_connection(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("word")] * 3, then="hang"))
        others = asyncio.all_tasks()
        reader, writer = await open_to(served)

        writer.write(ask(caller.key, streamed=True))
        await reader.readuntil(b"word")
        writer.write(UPGRADE)
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65_536):
                pass
        (row,) = await closed()

        assert (row.state, row.outcome) == ("settled", "client_gone")
        async with asyncio.timeout(5):
            while answering(others):
                await asyncio.sleep(0.02)
        writer.close()


async def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(served, upstream, monkeypatch):
    monkeypatch.setattr(http_protocols, "UNREAD_S", 0.3)
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    text = "x" * 6_000_000
    upstream.script(answer(completion(text)))
    loop = asyncio.get_running_loop()
    host, port = served.base_url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, ask(caller.key, streamed=False))

        got = bytearray(await loop.sock_recv(client, 65_536))
        head, _, start = bytes(got).partition(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head)[0])
        taken = len(start)
        while taken < length:
            await asyncio.sleep(0.02)
            part = await loop.sock_recv(client, 65_536)
            assert part, f"cut off after {taken} of {length} bytes"
            taken += len(part)

    assert taken == length > len(text)
