"""Streamed completion: bytes as they come, settled however the stream ends.

A stream waits until something is generated; until then another upstream can still be asked. The
end marker leaves after the debit has committed. A stream that breaks ends with an error frame and
an abnormal close, so that no SDK takes it for whole.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final

from airi_server.kernel import alarms, database
from airi_server.kernel.alarms import Alarm
from airi_server.kernel.deadlines import Deadline
from airi_server.kernel.errors import DomainError
from billing import requests
from billing.requests import Replay
from billing.settlements import Charged
from llmrouter.completions import sse
from llmrouter.completions.chat_request import ChatRequest
from llmrouter.completions.completion import stored
from llmrouter.completions.opening import Opening, OpeningVerdict
from llmrouter.completions.sse import StreamReader
from llmrouter.completions.stream_buffer import StreamBuffer
from llmrouter.gateway import estimates, tasks
from llmrouter.gateway.paid import NoAnswer, PaidAnswer, PaidRequest
from llmrouter.gateway.usage import Reading
from llmrouter.routing import provider_errors, provider_words
from llmrouter.routing.failures import TIMEOUT, AttemptFailed
from llmrouter.routing.planning import Attempt
from llmrouter.upstream import client
from llmrouter.upstream.client import Waits
from llmrouter.upstream.responses import Response

logger = logging.getLogger(__name__)

CHECKPOINT_S: Final = 2.0
LAST_FRAME_S: Final = 2.0
"""How long the end of a stream waits for its debit before it leaves all the same."""
BEAT_S: Final = 5.0
"""How often a stream is looked at that has been silent."""
HEAD_BEATS: Final = 2
"""After these the client is sent its head and comments, begun or not: proxies count silence."""
PING_BEATS: Final = 2
"""Silent beats before a comment of ours: at most 15 s without a byte."""
NOT_STREAMS: Final = frozenset({"application/json", "text/html", "application/xhtml+xml"})


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(kw_only=True, eq=False)
class StreamedCompletion(PaidRequest):
    """`started` is done when there is something to answer with: a stream, a replay or a refusal."""

    order: ChatRequest
    relay: StreamBuffer = field(default_factory=StreamBuffer)
    started: asyncio.Future[None] = field(default_factory=_future)
    replay: Replay | None = None
    content_type: ClassVar[str] = "text/event-stream"
    reader: StreamReader = field(init=False)
    _until: float | None = None
    _beats: int = 0
    _heard: int = 0
    _beat: Alarm | None = None

    def __post_init__(self) -> None:
        self.reader = StreamReader(
            hide_usage=not self.order.wants_usage,
            choices=self.order.choices,
            keeps_text=bool(self.route.tokenizer),
        )

    def leave(self) -> None:
        """As everybody does: whoever has all of it, and whoever hangs up before."""
        has_all = self.relay.has_ended
        self.relay.leave()
        if not has_all:
            super().leave()

    async def run(self) -> PaidAnswer:
        try:
            return await super().run()
        except BaseException as refusal:
            if not self.started.done():
                self.started.set_exception(refusal)
            elif not self.relay.has_ended:
                # The head has left already, and a status with it: the reason goes behind it.
                self.relay.put(sse.error_frame(_refusal(refusal)))
            self.relay.end(aborted=True)
            raise

    async def produce(self) -> PaidAnswer:
        self.replay = await self.open()
        if self.replay is not None:
            self.started.set_result(None)
            return stored(self.replay)
        self._beat = alarms.after(BEAT_S, self._on_beat)
        try:
            outcome = await self._run_through()
            charged = await self._finish(outcome)
        finally:
            self._beat.cancel()
        return PaidAnswer(self.ticket.id, b"", self.content_type, charged.charged)

    async def _run_through(self) -> str:
        """Find an answer and hand it out; return how it ended."""
        response, head = await self.find_answer()
        try:
            self.first_byte_at = time.perf_counter() - self.began
            await self._mark()
            self._start()
            return await self._forward(response, head)
        finally:
            response.close()

    def delivered(self) -> Reading | None:
        if self.first_byte_at is None:
            return None
        reader = self.reader
        return self.read(
            reader.reports, has_text=reader.has_text, generated=lambda: reader.generated
        )

    @property
    def search_s(self) -> float:
        """All connects and heads together; what a head is followed by has its own limits."""
        return self.bounds.chain_s

    def waits(self, attempt: Attempt) -> Waits:
        return Waits(attempt.upstream.head_s, self.bounds.first_event_s, is_stream=True)

    async def read_head(self, response: Response) -> bytes:
        """Read until something is generated: up to there it is still another upstream's chance."""
        if response.media_type in NOT_STREAMS:
            raise NoAnswer(response, await client.read_start(response))
        left_s = self.time_left()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self.bounds.total_s
        self.reschedule(self._until)
        opening, verdict = Opening(), OpeningVerdict.WAITING
        try:
            while verdict is OpeningVerdict.WAITING and (chunk := await client.take(response)):
                verdict = opening.feed(chunk)
        finally:
            self.reschedule(asyncio.get_running_loop().time() + left_s)
        if verdict is not OpeningVerdict.BEGUN:
            rest = await client.read_start(response) if opening.is_body else b""
            raise NoAnswer(response, opening.refused + rest)
        response.allow_silence(self.bounds.idle_s)
        self.reader.has_generated = opening.has_generated
        return opening.held

    def _start(self) -> None:
        """Let the head go to the client, once."""
        if not self.started.done():
            self.started.set_result(None)

    def _on_beat(self) -> None:
        """Let the client hear something: its head, or a comment where nothing else has come."""
        self._beat = alarms.after(BEAT_S, self._on_beat)
        self._beats += 1
        if self.first_byte_at is None and not self.started.done():
            if self._beats < HEAD_BEATS:
                return
            self._start()
            self._beats = PING_BEATS
        if self.relay.passed != self._heard:
            self._heard, self._beats = self.relay.passed, 0
        elif self._beats >= PING_BEATS and not self.relay.has_ended:
            if self.reader.is_between_frames:
                self.relay.put(sse.PING)
            self._heard, self._beats = self.relay.passed, 0

    async def _mark(self) -> None:
        try:
            tokens = estimates.of_text(self.reader.generated)
            await requests.mark(self.ticket.id, checkpoint=tokens)
        except database.AWAY:
            # The stream goes on: its owner knows what it delivered as long as it lives.
            logger.warning("Unable to mark a stream", extra={"request": str(self.ticket.id)})

    async def _forward(self, response: Response, head: bytes) -> str:
        """Hand bytes to the client until the stream ends; return how it did."""
        outcome = "completed"
        left_s = (self._until or math.inf) - asyncio.get_running_loop().time()
        try:
            async with self.deadline(left_s) as timer:
                await self._pump(response, head, timer)
        except TimeoutError:
            outcome = self.finishing or "deadline"
        except AttemptFailed as broken:
            outcome = "upstream_stalled" if broken.reason == TIMEOUT else "upstream_broken"
        if self.reader.is_whole:
            return "completed"
        if self.reader.error is not None:
            return "upstream_error"
        return "upstream_broken" if outcome == "completed" else outcome

    async def _pump(self, response: Response, head: bytes, timer: Deadline) -> None:
        loop = asyncio.get_running_loop()
        reader, relay = self.reader, self.relay
        next_checkpoint = loop.time() + CHECKPOINT_S
        ending = False
        if forwarded := reader.feed(head):
            await relay.pass_on(forwarded)
        while chunk := await client.take(response):
            if forwarded := reader.feed(chunk):
                await relay.pass_on(forwarded)
            if reader.end_marker and not ending and not response.is_whole:
                # All that can follow is the end of the body, which frees the connection.
                ending = True
                timer.reschedule(min(timer.when(), loop.time() + 1))
            if loop.time() >= next_checkpoint:
                next_checkpoint = loop.time() + CHECKPOINT_S
                _ = tasks.own(self._mark())
        if rest := reader.close():
            relay.put(rest)

    async def _finish(self, outcome: str) -> Charged:
        """Settle, then let the end of the stream go; it goes alone if settling takes too long."""
        reader = self.reader
        used = await self.reading(
            reader.reports,
            has_text=reader.has_text,
            generated=lambda: reader.generated,
            answer=reader.deltas,
        )
        if reader.error is not None:
            self.walk.break_off(self._kept_of(reader.error))
        settlement = self._settlement(outcome, used, completed=outcome == "completed")
        too_long = alarms.after(LAST_FRAME_S, partial(self._end, outcome))
        try:
            return await self.settle(settlement)
        finally:
            too_long.cancel()
            self._end(outcome)

    def _kept_of(self, error: Any) -> str:
        """Return what an error in the middle of a stream says, for the row."""
        return provider_words.of_error(error, request=self._written, authorization=self._asked_with)

    def _end(self, outcome: str) -> None:
        """Let the last frame go, once."""
        if self.relay.has_ended:
            return
        if outcome == "completed":
            if self.reader.end_marker:
                self.relay.put(self.reader.end_marker)
            self.relay.end()
        else:
            self.relay.put(sse.error_frame(_interruption(outcome, self.reader.error)))
            self.relay.end(aborted=True)


def _interruption(outcome: str, error: Any) -> dict[str, Any]:
    code = "SERVICE_UNAVAILABLE" if outcome == "shutdown" else "BAD_GATEWAY"
    said = provider_errors.message_of(error) if error else ""
    return _error(said or "The stream was interrupted.", code)


def _refusal(refusal: BaseException) -> dict[str, Any]:
    if isinstance(refusal, DomainError):
        return _error(refusal.message, refusal.code)
    return _error("Something went wrong.", "INTERNAL_SERVER_ERROR")


def _error(message: str, code: str) -> dict[str, Any]:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return {"error": error, "message": message}
