"""Bodies that are not read and answers that nobody reads: neither fills the memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import orjson
import pytest

from airi_server.web import bodies, http_protocols
from tests.airi_server.test_entry import head_of, open_to
from tests.factories import gateway
from tests.fakes.upstream import chunk, stream
from tests.llmrouter.exchanges import closed

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
MIB = 2**20


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // MIB


async def head_from(reader):
    async with asyncio.timeout(3):
        return (await reader.readuntil(b"\r\n\r\n")).lower()


class TestUnknownCaller:
    @pytest.mark.parametrize("path", [PATH, "/v1/anything", "/api/v1/flux"])
    async def test_is_refused_before_the_body_is_sent(self, served, path):
        length = (
            "content-length: 1000000" if path.startswith("/api") else "content-length: 33000000"
        )
        for key in ("sk-airi-nobody", ""):
            reader, writer = await open_to(served)
            writer.write(head_of(path, key, length))

            head = await head_from(reader)

            assert b" 401 " in head.split(b"\r\n")[0]
            assert b"\r\nconnection: close\r\n" in head
            async with asyncio.timeout(3):
                await reader.read()  # to the end: the connection is closed
            writer.close()

    async def test_cannot_fill_the_memory(self, served):
        piece = b"x" * MIB
        before, writers = resident_mib(), []
        for _ in range(8):
            _, writer = await open_to(served)
            writers.append(writer)
            writer.write(head_of("/v1/anything", "nobody", "content-length: 33554432"))
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(1):
                    for _ in range(31):
                        writer.write(piece)
                        await writer.drain()

        assert resident_mib() - before < 64

        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)


class TestRefusedBody:
    async def test_ends_with_its_connection(self, served, settings, monkeypatch):
        monkeypatch.setattr(bodies, "TIMEOUT_S", 0.3)
        settings.MAX_GATEWAY_BODY_BYTES = 1_000
        caller = await gateway.caller()
        for status, sent in ((413, b"800\r\n" + b"x" * 2_048 + b"\r\n"), (408, b"1\r\n{\r\n")):
            reader, writer = await open_to(served)
            writer.write(head_of(PATH, caller.key, "transfer-encoding: chunked") + sent)

            head = await head_from(reader)

            assert b" %d " % status in head.split(b"\r\n")[0]
            assert b"\r\nconnection: close\r\n" in head
            async with asyncio.timeout(3):
                await reader.read()
            writer.close()

    async def test_without_a_body_the_connection_stays(self, served):
        refused = await served.get("/v1/models", "sk-airi-nobody")

        assert refused.status == 401
        assert "Connection" not in refused.headers


class TestClientThatStopsReading:
    async def test_is_cut_and_pays_for_what_was_delivered(self, served, upstream, monkeypatch):
        monkeypatch.setattr(http_protocols, "UNREAD_S", 0.3)
        caller = await gateway.caller(flux=100_000)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("x" * 60_000)] * 400, then="hang"))
        body = orjson.dumps({"stream": True, "messages": [{"role": "user", "content": "hi"}]})
        others = asyncio.all_tasks()
        loop = asyncio.get_running_loop()
        host, port = served.base_url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, (host, int(port)))
            head = head_of(PATH, caller.key, f"content-length: {len(body)}")
            await loop.sock_sendall(client, head + body)

            (row,) = await closed()

            assert (row.state, row.outcome) == ("settled", "client_gone")
            assert row.completion_tokens > 0
            async with asyncio.timeout(3):
                while {t for t in asyncio.all_tasks() - others if "run_asgi" in repr(t)}:
                    await asyncio.sleep(0.02)
        account = await gateway.account(caller.user_id)
        assert account.held == 0
        assert upstream.aborted == 1
