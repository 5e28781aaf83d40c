"""What a plain and a streamed completion share: the hold, the walk, the deadline, the settlement.

The two kinds differ only in how the answer is read and handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from airi_server.kernel.errors import DomainError
from billing import requests
from billing.pricing import Usage
from billing.requests import InsufficientFlux, Replay, SpendingLimits
from billing.settlements import Charged, Settlement, Ticket
from llmrouter import limits, owners, telemetry
from llmrouter.completions import reports, tokenizers
from llmrouter.completions.orders import Order
from llmrouter.completions.reports import Course
from llmrouter.configuration.routes import Route
from llmrouter.limits import Admission
from llmrouter.routing import failures, upstream
from llmrouter.routing.attempts import Walk
from llmrouter.routing.failures import AttemptFailed
from llmrouter.routing.planning import Attempt, Plan
from llmrouter.routing.responses import Response

logger = logging.getLogger(__name__)

DRAIN_S: Final = 1.0
"""How long an upstream may go on after the client left: usage may be about to arrive."""
RELEASE_S: Final = 2.0
"""How long an answer that costs nothing waits for its hold to be released."""


class ServerStopping(DomainError):
    """The server is shutting down and the upstream has not answered. Nothing was charged."""

    code = "SERVICE_UNAVAILABLE"
    status = 503


class ClientGone(DomainError):
    """Nobody waits for the answer. For the request's row; nothing was charged."""

    code = "CLIENT_GONE"
    status = 499


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every wait of a request, in seconds."""

    first_byte_s: float
    idle_s: float
    chain_s: float
    total_s: int

    @property
    def deadline_s(self) -> int:
        """After this the row is an orphan, whatever its instance says."""
        return round(self.chain_s + self.total_s + requests.SETTLE_DEADLINE_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, paid for."""

    request_id: UUID
    body: bytes
    content_type: str
    charged: int
    replayed: bool = False


@dataclass(kw_only=True, eq=False)
class PaidRequest(ABC):
    """One request from its open row to its settlement, run once by its owner task."""

    order: Order
    route: Route
    plan: Plan
    ticket: Ticket
    spending: SpendingLimits
    admission: Admission
    bounds: Bounds
    traceparent: str | None
    began: float
    walk: Walk[tuple[Response, bytes]] = field(default_factory=Walk)
    max_tokens: int = 0
    hurried: str | None = None
    first_byte_at: float | None = None
    _timer: asyncio.Timeout | None = None
    _opened: bool = False
    _closing: bool = False

    async def run(self) -> Answer:
        """Produce the answer; whatever goes wrong on the way, leave no row open behind."""
        try:
            return await self.produce()
        except BaseException as failure:
            if self._closing:
                raise
            if not self._opened:
                limits.release(self.admission, tokens=0)
            else:
                logger.exception("A paid request failed", extra={"request": str(self.ticket.id)})
                settlement = self._settlement("server_error", self.delivered(), completed=False)
                settlement.error_code = type(failure).__name__
                await self.settle(settlement)
            raise

    @abstractmethod
    async def produce(self) -> Answer:
        """Open, find an answer, hand it out and settle."""

    @abstractmethod
    async def read_head(self, response: Response) -> bytes:
        """Read as much of a 2xx answer as decides whether it is one.

        Raises:
            AttemptFailed: It is not; the next attempt may do better.
        """

    def delivered(self) -> Usage | None:
        """Return what the client has received so far, as usage; None is nothing."""
        return None

    async def count(self, answer: list[Any] | None) -> Usage | None:
        """Count an answer whose usage nobody reported, if the model's tokenizer is known."""
        if not self.route.tokenizer or answer is None:
            return None
        return await tokenizers.count_exchange(
            self.route.tokenizer, messages=self.order.body.get("messages"), answer=answer
        )

    def leave(self) -> None:
        """The client is gone: let the upstream finish if it is about to, else cancel it."""
        self.hurry("client_gone", within_s=DRAIN_S)

    def hurry(self, reason: str, *, within_s: float) -> None:
        """End soon, for a reason that goes on the row."""
        if self.hurried is None or reason == "shutdown":
            self.hurried = reason
        self.walk.stopped = True
        soon = asyncio.get_running_loop().time() + within_s
        # A deadline that has passed, or has been left, can no longer be moved: nothing waits.
        with contextlib.suppress(RuntimeError):
            if self._timer is not None and (self._timer.when() or 0) > soon:
                self._timer.reschedule(soon)

    def deadline(self, seconds: float) -> asyncio.Timeout:
        """Return the running deadline, which `hurry` can bring forward."""
        if self.hurried is not None:
            seconds = min(seconds, DRAIN_S if self.hurried == "client_gone" else 0)
        self._timer = asyncio.timeout(seconds)
        return self._timer

    async def open(self) -> Replay | None:
        """Reserve the Flux; a repeated client key brings the stored answer instead."""
        hold = self.order.hold(self.ticket.price, self.route)
        try:
            opened = await requests.open(
                self.ticket,
                hold=hold,
                limits=self.spending,
                deadline_s=self.bounds.deadline_s,
            )
        except InsufficientFlux:
            telemetry.refused_for_flux()
            raise
        if isinstance(opened, Replay):
            self._closing = True
            limits.release(self.admission, tokens=0)
            return opened
        self._opened = True
        self.max_tokens = self.order.fit(self.ticket.price, self.route, opened)
        return None

    async def find_answer(self) -> tuple[Response, bytes]:
        """Walk the plan within the deadline of the whole chain.

        Raises:
            DomainError: Nobody answered, or there was no time left; the row is voided and the
                hold released by then.
        """
        try:
            async with self.deadline(self.bounds.chain_s):
                return await self.walk.run(self.plan, self.send)
        except TimeoutError:
            refusal = self._out_of_time()
        except DomainError as refused:
            refusal = refused
        await self.void(self.hurried or "failed", refusal)
        raise refusal

    async def send(self, attempt: Attempt, authorization: str) -> tuple[Response, bytes]:
        """Make one call; return its 2xx answer and as much of it as decides that it is one."""
        response = await upstream.post(
            attempt.upstream.url,
            authorization=authorization,
            body=self.order.body_for(attempt, self.max_tokens),
            first_byte_s=min(attempt.upstream.timeout_s, self.bounds.first_byte_s),
            idle_s=self.bounds.idle_s,
            is_stream=self.order.stream,
        )
        try:
            return response, await self._accept(response)
        except BaseException:
            response.close()
            raise

    async def _accept(self, response: Response) -> bytes:
        status = response.status
        if status in failures.CALLER_FAULTS:
            raise failures.refused(status, await upstream.read_start(response))
        if not 200 <= status < 300:
            raise AttemptFailed(
                str(status), status=status, retry_after=response.headers.get("retry-after")
            )
        if response.headers.get("content-encoding", "identity") != "identity":
            raise AttemptFailed(failures.BAD_ANSWER, status=status)
        return await self.read_head(response)

    def _out_of_time(self) -> DomainError:
        if self.hurried is None:
            return self.walk.time_out()
        if self.hurried == "shutdown":
            return ServerStopping("The server is stopping.", retry_after_s=1)
        return ClientGone("The client is gone.")

    async def void(self, outcome: str, refusal: DomainError) -> None:
        """Close the row without a charge. Waits a moment for it: a retry needs the hold back."""
        settlement = self._settlement(outcome, None, completed=False)
        settlement.status = refusal.status
        settlement.error_code = refusal.code
        closing = owners.own(self.settle(settlement))
        await asyncio.wait({closing}, timeout=RELEASE_S)

    async def settle(self, settlement: Settlement) -> Charged:
        """Close the row, then report: metrics, span, one log line."""
        self._closing = True
        usage = settlement.usage
        limits.release(self.admission, tokens=usage.prompt + usage.completion if usage else 0)
        charged = await requests.settle(settlement)
        course = Course(self.walk, self.first_byte_at, self.traceparent)
        reports.ended(course, settlement, charged)
        return charged

    def _settlement(self, outcome: str, usage: Usage | None, *, completed: bool) -> Settlement:
        attempt = self.walk.attempt
        return Settlement(
            ticket=self.ticket,
            outcome=outcome,
            usage=usage,
            completed=completed,
            upstream=attempt.upstream.id if attempt else None,
            upstream_key_id=attempt.key.id if attempt else None,
            attempts=self.walk.attempts,
            failures=[failure.row() for failure in self.walk.failures],
            status=200 if attempt else None,
            duration_ms=round((time.perf_counter() - self.began) * 1000),
            ttft_ms=round(self.first_byte_at * 1000) if self.first_byte_at else None,
        )
