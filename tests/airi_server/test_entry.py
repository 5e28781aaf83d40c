"""The way of a request in: its body within its bounds, and clients that send it oddly."""

from __future__ import annotations

import asyncio
import logging

import pytest

from airi_server.web import bodies
from tests.factories import gateway

pytestmark = pytest.mark.asyncio


class TestBodyLimit:
    async def test_is_larger_on_the_gateway(self, settings):
        assert bodies.limit("/v1/chat/completions") == 33_554_432
        assert bodies.limit("/api/v1/openai/chat/completions") == 33_554_432
        for path in ("/api/v1/flux", "/api/v1/keys", "/admin/login/", "/v1", "/api/v1/openaix"):
            assert bodies.limit(path) == 1_048_576

    @pytest.mark.parametrize(
        ("length", "declared"),
        [(b"10", 10), (b"0", 0), (b"9" * 400, int("9" * 20)), (b"-1", 0), (b"", 0), (b"1e9", 0)],
    )
    async def test_is_compared_with_what_is_declared(self, length, declared):
        scope = {"headers": [(b"host", b"1"), (b"content-length", length)]}

        assert bodies.declared_length(scope) == declared

    async def test_is_answered_before_the_body_is_sent(self, served):
        """413 comes after the headers alone, and the connection is not used again."""
        reader, writer = await open_to(served)
        writer.write(b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n")

        async with asyncio.timeout(2):
            head = await reader.readuntil(b"\r\n\r\n")

        assert b" 413 " in head.split(b"\r\n")[0]
        assert b"connection: close" in head.lower()
        writer.close()


async def open_to(served):
    host, port = served.base_url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def head_of(path, key, *headers):
    """Return the head of a POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class TestSlowBody:
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/keys", "/api/v1/flux"])
    async def test_is_given_up(self, served, monkeypatch, path):
        monkeypatch.setattr(bodies, "TIMEOUT_S", 0.2)
        caller = await gateway.caller()
        reader, writer = await open_to(served)
        writer.write(head_of(path, caller.key, "content-length: 9") + b"{")

        async with asyncio.timeout(2):
            head = await reader.readuntil(b"\r\n\r\n")

        assert b" 408 " in head.split(b"\r\n")[0]
        assert b"connection: close" in head.lower()
        writer.close()

    async def test_in_small_pieces_is_read(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)

        async def pieces():
            for byte in b'{"messages":[]}':
                yield bytes([byte])
                await asyncio.sleep(0.001)

        response = await served.send("POST", "/v1/chat/completions", key=caller.key, data=pieces())

        assert response.status == 200
        assert upstream.seen[0].body["messages"] == []


class TestClientLeft:
    async def test_before_its_body_came_is_no_error(self, served, caplog):
        caller = await gateway.caller()
        for path in ("/v1/chat/completions", "/api/v1/keys"):
            _, writer = await open_to(served)
            writer.write(head_of(path, caller.key, "content-length: 9") + b"{")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()
        await asyncio.sleep(0.1)

        assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


class TestPipelining:
    async def test_answers_come_in_order(self, served):
        reader, writer = await open_to(served)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(2):
            first = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            second = await reader.readuntil(b"\r\n\r\n")
        assert (b" 200 " in first, b" 404 " in second) == (True, True)
        writer.close()
