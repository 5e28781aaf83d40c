"""Connections of bytes to the server: what was sent as it was sent, and the answers one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import pytest

PAUSE_S = 0.02
"""Long enough for what was sent before to be read by itself."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *segments: bytes) -> None:
        """Send each segment by itself; who has ended the connection is not told."""
        for number, segment in enumerate(segments):
            if number:
                await asyncio.sleep(PAUSE_S)
            with suppress(ConnectionError):
                self.writer.write(segment)
                await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer | None:
        """Return the next answer; None if the connection ends instead."""
        try:
            async with asyncio.timeout(10):
                return await self._answer(method)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def answers(self, methods: Sequence[str]) -> list[Answer]:
        """Return what came to requests of these methods, until the connection ended."""
        found = []
        for method in methods:
            answer = await self.answer(method)
            if answer is None:
                break
            found.append(answer)
        return found

    async def end(self, *, within_s: float = 5) -> bytes:
        """Return what still comes, to the end of the connection, which has to come."""
        async with asyncio.timeout(within_s):
            with suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def _answer(self, method: str) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
        status = int(head[0].split()[1])
        if status == 100:
            return Answer(status, headers, b"")
        body = b""
        if method == "HEAD" or status in (204, 304):
            pass
        elif "chunked" in headers.get("transfer-encoding", ""):
            while size := int(await self.reader.readuntil(b"\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, body)


@asynccontextmanager
async def line_to(base_url: str) -> AsyncIterator[Line]:
    place = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request, with the length of its body if it has one."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


INNER: Final = request("GET", "/inner")
"""What a body looks like that somebody would like to see served."""


async def told(log: pytest.LogCaptureFixture, count: int) -> list[str]:
    """Return the methods and paths that the server says it has answered, once there are so many."""
    async with asyncio.timeout(10):
        while len(_told(log)) < count:
            await asyncio.sleep(0.005)
    await asyncio.sleep(PAUSE_S)  # for those that should not be
    return _told(log)


def _told(log: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{vars(each)['method']} {vars(each)['path']}"
        for each in log.records
        if each.message == "Request ended"
    ]
