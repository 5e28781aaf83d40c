"""One HTTP/1.1 connection to an upstream: one request at a time, its answer read as it comes.

httptools parses. What is here is what a parser leaves open: who waits, for how long, how much is
kept, and when a connection may serve again. Why it is not a client library: docs/adr/0027.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from functools import partial
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llmrouter.upstream.responses import Disconnected, MalformedResponse, Response

MAX_HEAD_BYTES: Final = 65_536
"""Of a head, and of whatever else comes between two pieces of a body."""
MAX_UNREAD_BYTES: Final = 262_144
"""More than this that nobody has taken yet, and the upstream has to wait."""
PROGRESS_S: Final = 30.0
"""An upstream that takes nothing of a request for so long is gone."""
PIECE_BYTES: Final = 262_144
"""Longer bodies are written piece by piece, so that others get their turn."""


class Connection(asyncio.Protocol):
    """A socket to an upstream. After a whole answer it is handed to `keep`, to serve again."""

    def __init__(
        self, keep: Callable[[Connection], None], gone: Callable[[Connection], None]
    ) -> None:
        self.idle_since = 0.0
        self._keep = keep
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # As other clients do: servers exist that end lines with LF only, or pad a chunk's size.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._response: Response | None = None
        self._is_sent = False
        self._is_full = False
        self._has_ended = False
        self._is_paused = False
        self._may_serve_again = False
        self._first_byte_by = 0.0
        self._idle_s = 0.0
        self._heard_at = 0.0
        self._between = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether the next request may be written: it is open, and has nothing to say.

        What stands in the socket unread, because the loop was busy, was not asked for.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        return not self._poll.poll(0)

    async def ask(
        self, head: bytes, body: bytes, *, first_byte_by: float, idle_s: float
    ) -> Response:
        """Send a request and return when the head of its answer is there.

        It has to be there at `first_byte_by`, in the loop's time; after it there may be silence
        for `idle_s`.

        Raises:
            TimeoutError: It was not.
            Disconnected, Malformed: There will be none.
        """
        response = self._response = Response(self)
        self._is_sent = self._may_serve_again = False
        self._first_byte_by = first_byte_by
        self._idle_s = idle_s
        self._heard_at = 0.0
        self._between = 0
        self._look_again_by(first_byte_by)
        try:
            await self._send(head, body, response)
            while not response.status and response.failure is None:
                await response.news()
        except BaseException:
            response.close()  # unless it is whole by now, and somebody else's turn here
            raise
        if response.failure is not None and not response.status:
            raise response.failure()
        return response

    async def _send(self, head: bytes, body: bytes, response: Response) -> None:
        if self._transport is None:
            raise Disconnected(heard=False)
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
            self._is_sent = True
            return
        self._transport.write(head)
        for start in range(0, len(body), PIECE_BYTES):
            self._transport.write(body[start : start + PIECE_BYTES])
            await asyncio.sleep(0)
            async with asyncio.timeout(PROGRESS_S):
                while self._is_full and self._takes_more(response):
                    await response.news()
            if not self._takes_more(response):
                return
        self._is_sent = True

    def _takes_more(self, response: Response) -> bool:
        """Whether the rest of a request is worth sending: it is not answered, or waited for."""
        return self._response is response and response.status < 300 and not self._is_paused

    def go_on(self) -> None:
        """Read on: what has come was taken."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._look_again_by(self._heard_at + self._idle_s)
            _bound_reading(self._transport)
            self._transport.resume_reading()

    def allow_silence(self, seconds: float) -> None:
        """Say how long nothing may come from now on."""
        self._idle_s = seconds
        if self._transport is not None and not self._is_paused:
            self._look_again_by(self._heard_at + seconds)

    def _pause(self, transport: asyncio.Transport) -> None:
        self._is_paused = True
        _bound_reading(transport, 1, 0)
        transport.pause_reading()

    def hang_up(self) -> None:
        """End the connection at once."""
        self._fail(partial(Disconnected, heard=True))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream, it is one
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None or self._parser is None:
            self.hang_up()  # nobody asked: the next answer could not be told from this
            return
        self._heard_at = self._loop.time()
        self._between += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as malformed:
            self._may_serve_again = False
            if not response.is_whole:
                self._fail(partial(MalformedResponse, str(malformed)))
                return
        if response.is_whole:
            self._finish(response)
        elif self._between > MAX_HEAD_BYTES:
            self._fail(partial(MalformedResponse, "A head without an end."))
        elif response.size > MAX_UNREAD_BYTES and self._transport is not None:
            self._pause(self._transport)
        response.tell()

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, failure: Exception | None) -> None:
        response = self._response
        if response is not None and failure is None and self._lasts_until_the_end(response):
            response.is_whole = True
        self._fail(partial(Disconnected, heard=self._heard_at > 0))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._response is not None:
            self._response.tell()

    # HttpResponseParser

    def on_message_begin(self) -> None:
        if self._response is not None and self._response.is_whole:
            self._may_serve_again = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None and not self._response.status:
            headers = self._response.headers
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if self._response is None or self._parser is None or self._response.is_whole:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise MalformedResponse("No status.")  # the parser passes it on as an error of its own
        if status < 200:
            self._response.headers.clear()  # it announces the answer, and is none
            return
        self._response.status = status
        self._may_serve_again = self._parser.should_keep_alive()
        self._look_again_by(self._heard_at + self._idle_s)

    def on_body(self, part: bytes) -> None:
        if self._response is not None and not self._response.is_whole:
            self._between = 0
            self._response.put(part)

    def on_message_complete(self) -> None:
        if self._response is not None and self._response.status:
            self._response.is_whole = True

    # How it ends

    def _finish(self, response: Response) -> None:
        """The answer is whole: serve again if that is possible, hang up if not."""
        is_sent = (
            self._is_sent
            and not self._is_full
            and self._transport is not None
            and self._transport.get_write_buffer_size() == 0
        )
        if not (self._may_serve_again and is_sent):
            self.hang_up()
            return
        self.go_on()
        self._response = response.connection = None
        self.idle_since = self._heard_at
        self._keep(self)

    def _fail(self, failure: Callable[[], Exception]) -> None:
        """End the connection, and what was under way on it, if it is not whole.

        The failure is made where it is raised: kept, it would keep its traceback, and that us.
        """
        response, self._response = self._response, None
        if response is not None:
            response.connection = None
            if not response.is_whole:
                response.failure = failure
            response.tell()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._gone(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None  # the two refer to each other

    def _lasts_until_the_end(self, response: Response) -> bool:
        """Whether the end of the connection is the end of the body: nothing else says it.

        Over TLS only an end that was announced, or anybody on the way could shorten it.
        """
        framed = {"content-length", "transfer-encoding"}
        return self._has_ended and response.status > 0 and framed.isdisjoint(response.headers)

    # Time: one timer outlives many requests, and looks at what is due when it rings.

    def _look_again_by(self, when: float) -> None:
        if self._timer is None or self._looks_at > when:
            if self._timer is not None:
                self._timer.cancel()
            # Kept beside it: uvloop's of less than half a millisecond cannot say when it rings.
            self._looks_at = when
            self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        response = self._response
        if response is None or self._is_paused:
            return
        due = self._heard_at + self._idle_s if response.status else self._first_byte_by
        if due > self._loop.time():
            self._look_again_by(due)
        else:
            self._fail(partial(TimeoutError, "The upstream says nothing."))


def _bound_reading(transport: asyncio.Transport, *limits: int) -> None:
    """Bound what uvloop reads ahead of a TLS connection, which it forgets when it ends."""
    bound = getattr(transport, "set_read_buffer_limits", None)
    if bound is not None:
        bound(*limits)
