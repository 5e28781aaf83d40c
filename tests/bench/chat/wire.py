"""The least of a WebSocket client: it upgrades, reads whole frames and answers pings.

A client library would cost the load as much as the server it measures.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from typing import Final, cast

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_UNMASKED: Final = b"\0\0\0\0"  # a key of zeros leaves the payload as it is


class Line(asyncio.Protocol):
    """One socket. `ready` is done with the upgrade, `lost` with the end of the connection.

    Args:
        take: Called with the payload of each text frame.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[int] = loop.create_future()
        self.pings = 0
        self._take = take
        self._buffer = b""
        self._code = 0
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def upgrade(self, host: str, path: str) -> None:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket",
                 "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                 f"Sec-WebSocket-Key: {key}", "", "")  # fmt: skip
        self._transport.write("\r\n".join(lines).encode())

    def send(self, payload: bytes, *, opcode: int = TEXT) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        elif size < 65_536:
            head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        self._transport.write(head + _UNMASKED + payload)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            self._opened(buffer[:end])
            buffer = buffer[end + 4 :]
        self._buffer = self._frames(buffer)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("lost during the upgrade"))
        if not self.lost.done():
            self.lost.set_result(self._code)

    def _opened(self, head: bytes) -> None:
        self._is_open = True
        if head[9:12] == b"101":
            self.ready.set_result(None)
        else:
            self.ready.set_exception(ConnectionError(head[:60].decode(errors="replace")))

    def _frames(self, buffer: bytes) -> bytes:
        """Hand on every whole frame; return the rest."""
        at, there = 0, len(buffer)
        while there - at >= 2:
            body, size = at + 2, buffer[at + 1]
            if size == 126:
                body = at + 4
                size = int.from_bytes(buffer[at + 2 : body], "big")
            elif size == 127:
                body = at + 10
                size = int.from_bytes(buffer[at + 2 : body], "big")
            if there < body + size:
                break
            self._frame(buffer[at] & 15, buffer[body : body + size])
            at = body + size
        return buffer[at:] if at else buffer

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._take(payload)
        elif opcode == PING:
            self.pings += 1
            self.send(payload, opcode=PONG)
        elif opcode == CLOSE:
            self._code = int.from_bytes(payload[:2], "big")
            self._transport.close()


async def dial(
    host: str, port: int, path: str, take: Callable[[bytes], None], *, within_s: float = 20
) -> Line:
    """Return an open socket.

    Raises:
        OSError, TimeoutError: There is none to be had.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(within_s):
        _, line = await loop.create_connection(lambda: Line(take), host, port)
        line.upgrade(f"{host}:{port}", path)
        await line.ready
    return line
