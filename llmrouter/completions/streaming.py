"""A completion streamed through: bytes as they come, settled however the stream ends.

The end marker leaves after the debit has committed. A stream that breaks ends with an error
frame and an abnormal close, so that no SDK takes it for whole.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from airi_server.kernel import database
from billing import requests
from billing.pricing import Usage
from billing.requests import Replay
from billing.settlements import Charged
from llmrouter import owners
from llmrouter.completions import sse
from llmrouter.completions.completion import stored
from llmrouter.completions.paid import Answer, PaidRequest
from llmrouter.completions.relay import Relay
from llmrouter.completions.sse import StreamReader
from llmrouter.routing import failures, upstream
from llmrouter.routing.failures import BAD_ANSWER, TIMEOUT, AttemptFailed
from llmrouter.routing.responses import Response

logger = logging.getLogger(__name__)

CHECKPOINT_S: Final = 2.0
LAST_FRAME_S: Final = 2.0
"""How long the end of a stream waits for its debit before it leaves all the same."""
MAX_HEAD_BYTES: Final = 65_536
NOT_STREAMS: Final = frozenset({"application/json", "text/html", "application/xhtml+xml"})


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(kw_only=True, eq=False)
class Streaming(PaidRequest):
    """`started` is done when there is something to answer with: a stream, a replay or a refusal."""

    relay: Relay = field(default_factory=Relay)
    started: asyncio.Future[None] = field(default_factory=_future)
    replay: Replay | None = None
    content_type: ClassVar[str] = "text/event-stream"
    reader: StreamReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = StreamReader(
            hide_usage=not self.order.wants_usage, choices=self.order.choices
        )

    def leave(self) -> None:
        self.relay.leave()
        super().leave()

    async def run(self) -> Answer:
        try:
            return await super().run()
        except BaseException as refusal:
            if not self.started.done():
                self.started.set_exception(refusal)
            self.relay.end(aborted=True)
            raise

    async def produce(self) -> Answer:
        self.replay = await self.open()
        if self.replay is not None:
            self.started.set_result(None)
            return stored(self.replay)
        response, head = await self.find_answer()
        try:
            self.first_byte_at = time.perf_counter() - self.began
            await self._mark()
            self.started.set_result(None)
            outcome = await self._forward(response, head)
        finally:
            response.close()
        charged = await self._finish(outcome)
        return Answer(self.ticket.id, b"", self.content_type, charged.charged)

    def delivered(self) -> Usage | None:
        if self.first_byte_at is None:
            return None
        return self.reader.usage or self.reader.estimate(self.ticket.prompt_estimate)

    async def read_head(self, response: Response) -> bytes:
        """Read up to the first whole frame: an error in it is still another upstream's chance."""
        if response.media_type in NOT_STREAMS:
            raise AttemptFailed(BAD_ANSWER, status=response.status)
        head = data = b""
        while chunk := await upstream.take(response):
            head += chunk
            data = sse.first_data(head)
            if data or len(head) > MAX_HEAD_BYTES:
                break
        if not head or sse.is_error(data):
            raise AttemptFailed(BAD_ANSWER, status=response.status)
        return head

    async def _mark(self) -> None:
        try:
            await requests.mark(self.ticket.id, checkpoint=self.reader.frames)
        except database.AWAY:
            # The stream goes on: its owner knows what it delivered as long as it lives.
            logger.warning("Unable to mark a stream", extra={"request": str(self.ticket.id)})

    async def _forward(self, response: Response, head: bytes) -> str:
        """Hand bytes to the client until the stream ends; return how it did."""
        outcome = "completed"
        try:
            async with self.deadline(self.bounds.total_s) as timer:
                await self._pump(response, head, timer)
        except TimeoutError:
            outcome = self.hurried or "deadline"
        except AttemptFailed as broken:
            outcome = "upstream_stalled" if broken.reason == TIMEOUT else "upstream_broken"
        if self.reader.is_whole:
            return "completed"
        if self.reader.error is not None:
            return "upstream_error"
        return "upstream_broken" if outcome == "completed" else outcome

    async def _pump(self, response: Response, head: bytes, timer: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        reader, relay = self.reader, self.relay
        next_checkpoint = loop.time() + CHECKPOINT_S
        ending = False
        if forwarded := reader.feed(head):
            await relay.pass_on(forwarded)
        while chunk := await upstream.take(response):
            if forwarded := reader.feed(chunk):
                await relay.pass_on(forwarded)
            if reader.end_marker and not ending and not response.is_whole:
                # All that can follow is the end of the body, which frees the connection.
                ending = True
                timer.reschedule(min(timer.when() or math.inf, loop.time() + 1))
            if loop.time() >= next_checkpoint:
                next_checkpoint = loop.time() + CHECKPOINT_S
                _ = owners.own(self._mark())
        if rest := reader.close():
            relay.put(rest)

    async def _finish(self, outcome: str) -> Charged:
        """Settle, then let the end of the stream go; it goes alone if settling takes too long."""
        used = self.reader.usage or await self.count(self.reader.deltas()) or self.delivered()
        settlement = self._settlement(outcome, used, completed=outcome == "completed")
        too_long = asyncio.get_running_loop().call_later(LAST_FRAME_S, self._end, outcome)
        try:
            return await self.settle(settlement)
        finally:
            too_long.cancel()
            self._end(outcome)

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


def _interruption(outcome: str, error: dict[str, Any] | None) -> dict[str, Any]:
    code = "SERVICE_UNAVAILABLE" if outcome == "shutdown" else "BAD_GATEWAY"
    said = failures.sanitized(error.get("message")) if error else ""
    message = said or "The stream was interrupted."
    return {
        "error": {"message": message, "type": "server_error", "param": None, "code": code},
        "message": message,
    }
