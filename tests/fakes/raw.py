"""A provider at the level of bytes: what no HTTP library would send, and connections that die.

Each request takes the next play of the script, the last one again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import hiredis

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawUpstream:
    """Use as an async context manager; `requests` and `connections` count what came in."""

    def __init__(self, *plays: Play, tls: ssl.SSLContext | None = None) -> None:
        self.plays = list(plays)
        self.requests = 0
        self.connections = 0
        self.base_url = ""
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http{'s' if self._tls else ''}://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                while not writer.is_closing():
                    await _read_request(reader)
                    play = self.plays[min(self.requests, len(self.plays) - 1)]
                    self.requests += 1
                    await play(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)


def says(*parts: bytes, pause_s: float = 0.0, then: str = "keep") -> Play:
    """Write `parts` as they are; `then`: "keep" the connection, "close" or "reset" it, "hang"."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if then == "hang":
            await reader.read()
        if then == "close":
            writer.close()
        if then == "reset":
            await asyncio.sleep(0.02)
            writer.transport.abort()

    return play


def response(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """Return a whole 200 as bytes; `length` is what its Content-Length claims."""
    size = len(body) if length is None else length
    lines = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {size}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def stream_head(*headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def piece(body: bytes) -> bytes:
    """Return one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


@contextlib.asynccontextmanager
async def listening(play: Play, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Leave all of each connection to `play`, the request too; yield the address."""
    playing: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await play(reader, writer)
        finally:
            playing.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    finally:
        server.close()
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing)
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """Listen on the port that is yielded, take every connection and never say a word."""

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _taking(listen) as port:
        yield port


@contextlib.asynccontextmanager
async def loading() -> AsyncIterator[int]:
    """Listen as a Redis that reads its data after a restart: it refuses every command."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65_536):
            commands.feed(data)
            while commands.gets() is not False:
                writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")

    async with _taking(refuse) as port:
        yield port


@contextlib.asynccontextmanager
async def _taking(play: Play) -> AsyncIterator[int]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await play(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.01)
