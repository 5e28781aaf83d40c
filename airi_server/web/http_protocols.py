"""uvicorn's connections, with a bound on what one peer can make the process keep.

A peer that sends the head of a request forever, that never reads, or that sends control frames and
fragments without end costs a timer and a few hundred kilobytes, and not for long. Where a request
ends is decided once, and what follows is the next request or nothing (`docs/http.md`).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import termios
from array import array
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

import httptools
from django.conf import settings
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from airi_server.kernel.errors import DomainError, InvalidRequest
from airi_server.web import heads
from airi_server.web.exchanges import ARRIVED, Exchange
from airi_server.web.joined_writes import JoinedWrites

logger = logging.getLogger(__name__)

HEAD_S: Final = 15.0
"""How long the head of a request may take, from its first byte, and the first byte itself."""
MAX_PIPELINED: Final = 16
"""Requests that may wait for the answer before theirs."""
MAX_OVERHEAD_BYTES: Final = 524_288
MAX_OVERHEAD: Final = 8
"""Sizes, extensions and trailers of chunks, in bytes for each byte of the body. One chunk a byte,
which a few clients send, is five."""
DISCARD_BYTES: Final = 1_048_576
DISCARD_S: Final = 1.0
"""What is read and dropped behind the last request of a connection."""
DISCARD_BODIES: Final = 4
DISCARD_BODY_S: Final = 30.0
DISCARD_PAUSE_S: Final = 10.0
"""What is read and dropped of a body whose request was answered before it had arrived: as much as
so many of the longest that are taken, for so long, with no longer pause."""
MAX_TOLD_PATH: Final = 200
UNREAD_S: Final = 60.0
MIN_READ_BYTES: Final = 16_384
"""A client that takes less than this of what waits for it in `UNREAD_S` is gone."""
LINGER_S: Final = 10.0
"""How long a socket that has ended may take to write what is left."""
MAX_FRAGMENTS: Final = 1_024
"""Of one message. Empty ones count nothing against its size."""


class HttpProtocol(HttpToolsProtocol):
    """HTTP, and what asks for an upgrade.

    What cannot be served is answered like any other request: in its turn, by the application, which
    finds the refusal in its scope. After it nothing is read as HTTP any more.
    """

    is_socket: ClassVar[Callable[[str], bool]] = staticmethod(lambda _path: False)
    """Whether sockets are served at a path; elsewhere an upgrade is ignored."""

    cycle: Exchange
    _is_in_head = False
    _is_timed = False
    """The head that is under way has a deadline of its own."""
    _is_deaf = False
    """What still comes is dropped, until no byte of `_left` is left."""
    _read = 0
    _early = 0
    """Bytes of this read; bytes of the head in those before it, but for the one it began in."""
    _wire = 0
    """Bytes that came while a body was under way, whatever they were."""
    _left = 0
    _discard_until = 0.0
    """When the rest of a body is waited for no more; 0 while there is none."""
    _upgrade: bytes | None = None
    """The head that asked for an upgrade, without it; empty if it is a handshake."""
    _timer: asyncio.TimerHandle | None = None
    _looks_at = 0.0
    """When the timer rings."""
    _then: Callable[[], None] | None = None
    _due = 0.0
    """What is to be done later, and when; the timer may ring before, and is then set again."""
    _unread: asyncio.TimerHandle | None = None
    _answering: Exchange | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        joined = JoinedWrites(transport, self.loop)
        joined.linger = self._linger
        self.transport = cast("asyncio.Transport", joined)
        # Without a word: a browser that connects ahead would take it for the answer to the request
        # that it sends at that moment.
        self._wait(HEAD_S, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        self._end_unread()
        if self._answering is not None:
            # uvicorn only tells the newest request of a pipeline.
            self._answering.leave()
        for queued, _ in self.pipeline:
            cast("Exchange", queued).forget()
        cast("JoinedWrites", self.transport).linger = None  # leaves no cycle for the collector
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._answering is None or self._answering.response_complete:
            self._close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._end_unread()
        super().resume_writing()

    def _expect_progress(self, left: int | None = None) -> None:
        waiting = _unread_bytes(self.transport)
        if left is not None and left - waiting < MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(UNREAD_S, self._expect_progress, waiting)

    def _close(self) -> None:
        """Close, also over bytes that stay unread; what was written may leave if it does."""
        self._end_waiting()
        transport = cast("JoinedWrites", self.transport).transport
        transport.close()
        if transport.get_write_buffer_size() and self._unread is None:
            self._expect_progress()

    def _linger(self) -> bool:
        """Read on for a moment after the last answer; return whether closing is put off.

        Closing over bytes that were not read resets the connection, and takes the answer from a
        client that sends all of its request before it looks.
        """
        transport = cast("JoinedWrites", self.transport).transport
        answered = self._answering
        if answered is None or not answered.response_complete:
            return False
        if transport.is_closing() or not transport.can_write_eof():
            return False
        self._is_deaf = True
        if answered.more_body or answered.broken is not None:
            self._discard_body()
        else:
            self._left = DISCARD_BYTES
            self._wait(DISCARD_S, self._close)
        self.flow.resume_reading()
        transport.write_eof()
        return True

    def _discard_body(self) -> None:
        """Read what is left of the body under way into nothing, then close."""
        self._left = DISCARD_BODIES * settings.MAX_GATEWAY_BODY_BYTES
        self._discard_until = self.loop.time() + DISCARD_BODY_S
        self._wait(min(DISCARD_PAUSE_S, DISCARD_BODY_S), self._close)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._drop(len(data))
            return
        self._read = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._stop_reading(error)
        else:
            self._watch()

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                data = memoryview(data)[stopped.args[0] :]
            else:
                return
            if not self._upgrade:
                self._open_socket(has_more=len(data) > 0)
                return
            # As if no upgrade had been asked for: the same head again, to a new parser.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(self._upgrade)

    def _stop_reading(self, error: httptools.HttpParserError) -> None:
        """Nothing after this can be told apart."""
        refused: BaseException | None = error.__context__
        if isinstance(refused, _NoMore):
            self._is_deaf, self._left = True, DISCARD_BYTES
            self.cycle.keep_alive = False
            return
        if refused is not None and not isinstance(refused, DomainError):
            logger.error("Reading a request failed", exc_info=refused)
        if not isinstance(refused, DomainError):
            refused = InvalidRequest("The request is not valid HTTP.")
        if self._is_in_head or self._answering is None or not self.cycle.more_body:
            self._refuse(refused)
        else:
            self._break_off(refused)

    def _watch(self) -> None:
        """See to it that whatever is under way now ends."""
        if self._is_in_head:
            self._watch_head()
            return
        if self._answering is None:  # only line ends have come; the deadline stays what it is
            return
        exchange = self.cycle
        if not exchange.response_complete:
            self._then = None
            if exchange.more_body:
                self._watch_body()
        elif exchange.more_body:
            self._drop(self._read)

    def _watch_head(self) -> None:
        if self._is_timed:
            self._early += self._read
        else:
            self._is_timed = True
            self._wait(HEAD_S, self._refuse_late)
        if self._early > heads.MAX_BYTES or heads.is_too_large(self.url, self.headers):
            self._refuse_late()

    def _watch_body(self) -> None:
        self._wire += self._read
        if self._wire > MAX_OVERHEAD_BYTES + MAX_OVERHEAD * self.cycle.arrived:
            self._break_off(InvalidRequest("The body is mostly something else."))

    def _drop(self, size: int) -> None:
        self._left -= size
        if self._left >= 0:
            if self._discard_until:
                left_s = self._discard_until - self.loop.time()
                self._wait(min(DISCARD_PAUSE_S, max(0, left_s)), self._close)
            return
        if self._answering is not None and not self._answering.response_complete:
            self.flow.pause_reading()
        else:
            self._close()

    def on_message_begin(self) -> None:
        if self._is_deaf or len(self.pipeline) >= MAX_PIPELINED:
            raise _NoMore
        self._begin_head()

    def _begin_head(self) -> None:
        self._is_in_head, self._is_timed = True, False
        self._early = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        scope = cast("dict[str, Any]", self.scope)
        scope["method"] = method.decode("ascii")
        # Only a long read can have brought a long head.
        if self._early + self._read > heads.MAX_BYTES or len(self.headers) > heads.MAX_HEADERS:
            heads.refuse_too_large(self.url, self.headers)
        found = heads.check(method, version, self.headers)
        path, query = heads.target(self.url, found)
        if b"upgrade" in found and self.parser.should_upgrade():
            self._decide_upgrade(method, version, path, query)
            return
        if version != "1.1":
            scope["http_version"] = version
        decoded = path.decode("ascii")
        scope["path"] = self.root_path + (unquote(decoded) if "%" in decoded else decoded)
        scope["raw_path"] = self.root_path.encode("ascii") + path if self.root_path else path
        scope["query_string"] = query
        if b"expect" in found:
            self.expect_100_continue = version == "1.1"
        self._begin(keep_alive=version == "1.1" and self.parser.should_keep_alive())

    def _decide_upgrade(self, method: bytes, version: str, path: bytes, query: bytes) -> None:
        """Take a handshake for a handshake where sockets are served, and leave the rest out."""
        self.url = path + b"?" + query if query else path
        served = type(self).is_socket(unquote(path.decode("ascii")))
        if served and heads.is_handshake(method, version, self.headers):
            self._upgrade = b""
        else:
            self._upgrade = heads.without_upgrade(method, self.url, version, self.headers)

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete and self.cycle.broken is None:
            self.cycle.take(body)

    def on_message_complete(self) -> None:
        exchange = self.cycle
        if self._is_in_head:  # that of an upgrade, which is not under way yet
            return
        exchange.more_body = False
        if not exchange.keep_alive:
            self._is_deaf, self._left = True, DISCARD_BYTES
        if exchange.response_complete:
            self._discard_until = 0.0
            self._wait(self.timeout_keep_alive, self._close)
        else:
            exchange.message_event.set()

    def _begin(self, *, keep_alive: bool) -> None:
        """Have the request of `scope` answered, when it is its turn."""
        self._is_in_head = False
        self._wire = 0
        limit = self.limit_concurrency
        is_full = limit is not None and max(len(self.connections), len(self.tasks)) >= limit
        app = service_unavailable if is_full else self.app
        is_next = self._answering is None or self.cycle.response_complete
        arrived = cast("dict[str, Any]", self.scope)[ARRIVED] = asyncio.Event()
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=arrived,
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if is_next:
            self._start_asgi_task(self.cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cast("Exchange", cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        exchange = cast("Exchange", self._answering)
        if exchange.body:
            exchange.forget()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.cycle.more_body:
            self._discard_body()
        elif not self._is_in_head:
            self._wait(self.timeout_keep_alive, self._close)

    def _refuse(self, error: DomainError) -> None:
        """Have the head that is under way answered with a refusal, the last thing said here."""
        if self._is_deaf or self.transport.is_closing():
            return
        if not self._is_in_head:
            self._begin_head()
        self._end_waiting()
        scope = cast("dict[str, Any]", self.scope)
        raw_path = self.url.partition(b"?")[0][:MAX_TOLD_PATH]
        scope |= {"method": scope.get("method", ""), "path": raw_path.decode("latin-1")}
        scope |= {"raw_path": raw_path, "query_string": b"", "refused": error}
        self.expect_100_continue = False
        self._begin(keep_alive=False)
        self.cycle.more_body = False
        self._is_deaf, self._left = True, DISCARD_BYTES

    def _refuse_late(self) -> None:
        self._refuse(heads.too_much())

    def _break_off(self, error: DomainError) -> None:
        """Give up the body that is under way, and all that would come after it."""
        self._is_deaf, self._left = True, DISCARD_BYTES
        if self.cycle.response_complete:
            self._close()
        else:
            self.cycle.break_off(error)

    def _open_socket(self, *, has_more: bool) -> None:
        if self._answering is not None and not self._answering.response_complete:
            # The answer under way would be left on a connection that is not ours any more.
            self.transport.abort()
            return
        if has_more:
            self._refuse(InvalidRequest("Nothing may follow a handshake before its answer."))
            return
        self._is_in_head = False  # nor anything else that this protocol would watch
        self._end_waiting()
        self._end_unread()
        # A socket writes frame by frame; there is nothing to join.
        joined = cast("JoinedWrites", self.transport)
        joined.flush()
        self.transport = joined.transport
        self.handle_websocket_upgrade()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something later, instead of what was to be done later before.

        One timer outlives many requests: each puts off what happens after it, and most of what is
        to be done later is not done at all.
        """
        self._then, self._due = then, self.loop.time() + seconds
        if self._timer is None or self._looks_at > self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._look_when_due()

    def _look_when_due(self) -> None:
        # Kept beside the timer: uvloop's of less than half a millisecond cannot say when it rings.
        self._looks_at = self._due
        self._timer = self.loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._then is None:
            return
        if self._due > self.loop.time():
            self._look_when_due()
            return
        then, self._then = self._then, None
        then()

    def _end_waiting(self) -> None:
        """Do nothing later. What was to be done refers to us, and is let go of."""
        self._then = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class _NoMore(Exception):
    """The connection ends with what it has asked for so far."""


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Return what the peer has not acknowledged: ours, and what the kernel holds (megabytes)."""
    held = array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
    return transport.get_write_buffer_size() + held[0]


class WebSocketProtocol(WebSocketsSansIOProtocol):
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
