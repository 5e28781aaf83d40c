"""Exchange: uvicorn's request-response cycle with a bounded buffer for the body."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from airi_server.kernel.errors import DomainError
from airi_server.web.budgets import HELD, no_room

ARRIVED: Final = "airi.arrived"
"""Where a scope has the event that is set when `receive` would not have to wait."""
RARE: Final = frozenset({b"connection", b"transfer-encoding"})
"""Headers of an answer that say how it ends."""
BODILESS: Final = frozenset({204, 304})
CLOSE: Final = (b"connection", b"close")
CHUNKED: Final = (b"transfer-encoding", b"chunked")
EVERY_BYTE: Final = [bytes((each,)) for each in range(256)]
NOT_IN_NAMES: Final = b"".join(each for each in EVERY_BYTE if HEADER_RE.match(each)) + (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
NOT_IN_VALUES: Final = b"".join(each for each in EVERY_BYTE if HEADER_VALUE_RE.match(each))


class Exchange(RequestResponseCycle):
    """uvicorn's request with its answer.

    Attributes:
        arrived: Bytes of the body so far.
        broken: Why the rest of the body will not come; raised where it is read.
    """

    arrived = 0
    broken: DomainError | None = None

    def take(self, body: bytes) -> None:
        """Keep what has arrived until the application asks for it."""
        self.body += body
        self.arrived += len(body)
        HELD.buffered += len(body)
        if len(self.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
            if HELD.is_full():
                self.break_off(no_room())
        self.message_event.set()

    def leave(self) -> None:
        """Note that the connection is gone; what has arrived is dropped."""
        self.forget()
        if not self.response_complete:
            self.disconnected = True
            self.message_event.set()

    def break_off(self, error: DomainError) -> None:
        self.forget()
        self.broken, self.more_body, self.keep_alive = error, False, False
        self.message_event.set()

    def forget(self) -> None:
        """Drop what the application has not asked for yet."""
        HELD.buffered -= len(self.body)
        self.body = bytearray()

    async def receive(self) -> Any:
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            if self.more_body and not self.body and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.broken is None and not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self.message_event.is_set():
                await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.broken is not None:
            raise self.broken
        body = bytes(self.body)
        if body:
            self.forget()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """Write as uvicorn does; an ordinary head with one look at all of its headers.

        uvicorn looks at each by itself, twice, and makes the line of an access log that nobody
        reads; both took a fiftieth of a completion's time.
        """
        if not self.response_started and message["type"] == "http.response.start":
            headers = [*self.default_headers, *message.get("headers", ())]
            if self._is_ordinary(message["status"], headers):
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                if not self.disconnected:
                    self._write_head(message["status"], headers)
                return
        await super().send(message)

    def _is_ordinary(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Return whether a head says nothing that uvicorn has to find out, or to refuse."""
        if not headers or status in BODILESS or self.scope["method"] == "HEAD":
            return False
        if self.access_log and self.access_logger.isEnabledFor(logging.INFO):
            return False
        names, values = zip(*headers, strict=True)
        if not RARE.isdisjoint(names):
            return False
        # What none of them has, all of them together have not.
        return _is_free(b"".join(names), NOT_IN_NAMES) and _is_free(b"".join(values), NOT_IN_VALUES)

    def _write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        length = dict(headers).get(b"content-length")
        self.chunked_encoding = length is None
        if not self.keep_alive:
            headers.append(CLOSE)
        if length is None:
            headers.append(CHUNKED)
        else:
            self.expected_content_length = int(length)
        lines = map(b": ".join, headers)
        self.transport.write(STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n")


def _is_free(text: bytes, of: bytes) -> bool:
    """Return whether a text has none of some bytes; to take them out is faster than to search."""
    return len(text.translate(None, of)) == len(text)
