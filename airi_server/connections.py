"""uvicorn's connections, with a bound on what one peer can make the process keep.

A peer that sends the head of a request forever, that never reads, or that sends control frames and
fragments without end costs a timer and a few hundred kilobytes, and not for long.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

HEAD_S: Final = 15.0
"""How long the head of a request may take, from the first byte or the connection."""
MAX_HEAD_BYTES: Final = 65_536
MAX_JOINED_BYTES: Final = 65_536
"""More than this leaves at once, so that the transport can say that it is full."""
UNREAD_S: Final = 60.0
"""A client that takes nothing of its answer for so long is gone."""
LINGER_S: Final = 10.0
"""How long a connection that has ended may take to write what is left."""
MAX_FRAGMENTS: Final = 1_024
"""Of one message. Empty ones count nothing against its size."""


class JoinedWrites:
    """A transport of which the writes of one turn of the loop leave as one.

    uvloop makes a system call of each write, and each wakes the peer: an answer would be two, its
    head and its body.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_JOINED_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class Requests(HttpToolsProtocol):
    """HTTP, and what asks for an upgrade."""

    _is_in_head = True
    _head_size = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", JoinedWrites(transport, self.loop))
        self._deadline = self.loop.call_later(HEAD_S, self._refuse)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        self._end_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        # A socket writes frame by frame; there is nothing to join.
        self.transport = cast("JoinedWrites", self.transport).transport
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        self._is_in_head, self._head_size = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_head:
            self._end_waiting()
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD_BYTES:
            self._refuse()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._refuse)

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request is too slow or too long.")

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Sockets(WebSocketsSansIOProtocol):
    """A WebSocket."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        # Closing waits for a peer that may never read.
        self.loop.call_later(LINGER_S, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def handle_ping(self) -> None:
        """Answer, unless the peer does not read its answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
            return
        self.frames = []
        self.conn.fail(1009, "too many fragments")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # Who is gone does not take what is left, and until then the socket would count as open.
        self.transport.abort()
