"""uvicorn's connections, with a bound on what one peer can make the process keep.

A peer that sends the head of a request forever, that never reads, or that sends control frames and
fragments without end costs a timer and a few hundred kilobytes, and not for long.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios
from array import array
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

HEAD_S: Final = 15.0
"""How long the head of a request may take, from the first byte or the connection."""
MAX_HEAD_BYTES: Final = 65_536
MAX_JOINED_BYTES: Final = 65_536
"""More than this leaves at once, so that the transport can say that it is full."""
UNREAD_S: Final = 60.0
MIN_READ_BYTES: Final = 16_384
"""A client that takes less than this of what waits for it in `UNREAD_S` is gone."""
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
        if self._size + len(data) > MAX_JOINED_BYTES:
            self.flush()
            self._write(data)
            return
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write what waits now; once the connection is closing, nobody can have it."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


class Requests(HttpToolsProtocol):
    """HTTP, and what asks for an upgrade."""

    _is_in_head = True
    _head_size = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", JoinedWrites(transport, self.loop))
        self._deadline = self.loop.call_later(HEAD_S, self._refuse)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        self._end_unread()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn only tells the newest request of a pipeline.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def _expect_progress(self, left: int | None = None) -> None:
        waiting = _unread_bytes(self.transport)
        if left is not None and left - waiting < MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(UNREAD_S, self._expect_progress, waiting)

    def resume_writing(self) -> None:
        self._end_unread()
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        if self._answering is not None and not self._answering.response_complete:
            # The answer under way would be left on a connection that is not ours any more.
            self.transport.abort()
            return
        self._end_unread()
        # A socket writes frame by frame; there is nothing to join.
        joined = cast("JoinedWrites", self.transport)
        joined.flush()
        self.transport = joined.transport
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


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Return what the peer has not acknowledged: ours, and what the kernel holds (megabytes)."""
    held = array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
    return transport.get_write_buffer_size() + held[0]


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
