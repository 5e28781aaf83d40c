"""A peer that keeps to no rule: bytes on a TCP connection, and what the server keeps for it."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from airi_server.web.http_protocols import WebSocketProtocol

TEXT, PING = 1, 9
CONTINUED = 0


def head(path: str, *lines: str) -> bytes:
    """Return the request that asks for a socket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return "\r\n".join(
        [
            f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *lines, "", "",
        ]
    ).encode()  # fmt: skip


def frame(opcode: int, data: bytes = b"", *, is_last: bool = True) -> bytes:
    """Return a frame as clients have to send it, masked with zeros."""
    first = bytes([(0x80 if is_last else 0) | opcode])
    if len(data) < 126:
        size = bytes([0x80 | len(data)])
    else:
        size = bytes([0x80 | 127]) + struct.pack("!Q", len(data))
    return first + size + bytes(4) + data


class Peer:
    """One connection. Reads only when it is told to."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes, *, within_s: float = 10) -> None:
        async with asyncio.timeout(within_s):
            await self._loop.sock_sendall(self.line, data)

    async def read_until(self, wanted: bytes, *, within_s: float = 10) -> bytes:
        """Return what was read when `wanted` is in it, or the server has ended the connection."""
        got = b""
        async with asyncio.timeout(within_s):
            while wanted not in got and (part := await self._part()):
                got += part
        return got

    async def _part(self) -> bytes:
        """Return what has come; a reset is an end too, of a server that was still being told."""
        try:
            return await self._loop.sock_recv(self.line, 65_536)
        except ConnectionResetError:
            return b""

    async def read_to_the_end(self, *, within_s: float = 10) -> bytes:
        return await self.read_until(b"no such bytes", within_s=within_s)


@asynccontextmanager
async def connected(base_url: str, *, buffer: int = 8_192) -> AsyncIterator[Peer]:
    """Connect; the kernel keeps little for the peer, so that not reading is soon felt."""
    parts = urlsplit(base_url)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, (parts.hostname, parts.port))
        yield Peer(line)


@asynccontextmanager
async def opened(base_url: str, path: str) -> AsyncIterator[Peer]:
    """Open a socket, past the server's first frame."""
    async with connected(base_url) as peer:
        await peer.send(head(path))
        assert b"adapters:hono-ws:connected" in await peer.read_until(b"connected")
        yield peer


def kept() -> list[WebSocketProtocol]:
    """Return what this process keeps of connections that have not ended yet."""
    # Not isinstance, which would wake the lazy objects of other tests.
    found = [each for each in gc.get_objects() if issubclass(type(each), WebSocketProtocol)]
    return [each for each in found if not each.disconnected]
