"""Paid request: hold, failover, deadline and settlement, which every kind of answer shares.

The two kinds differ only in how the answer is read and handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import orjson

from airi_server.kernel.deadlines import Deadline
from airi_server.kernel.errors import DomainError
from billing import requests
from billing.pricing import Hold, Price, Usage
from billing.requests import InsufficientFlux, Replay, SpendingLimits
from billing.settlements import Charged, RequestRecord, Settlement
from llmrouter import telemetry
from llmrouter.configuration.routes import Route
from llmrouter.gateway import limits, reports, tasks, tokenizers, usage
from llmrouter.gateway.limits import Admission
from llmrouter.gateway.reports import Course
from llmrouter.gateway.usage import Asked, Reading, Reports
from llmrouter.routing import failures, provider_errors, provider_words, repairs
from llmrouter.routing.failover import Failover
from llmrouter.routing.failures import AttemptFailed, Blame, UpstreamRefused
from llmrouter.routing.planning import Attempt, RoutePlan
from llmrouter.routing.provider_errors import ProviderFault, Sort
from llmrouter.routing.repairs import Repair
from llmrouter.upstream import client
from llmrouter.upstream.client import Waits
from llmrouter.upstream.responses import Response

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


class Bounds(NamedTuple):
    """Every wait of a request, in seconds."""

    chain_s: float
    answer_s: float
    first_event_s: float
    idle_s: float
    total_s: int

    @property
    def deadline_s(self) -> int:
        """After this the row is an orphan, whatever its instance says."""
        longest = max(self.chain_s + self.total_s, self.answer_s)
        return round(longest + requests.SETTLE_DEADLINE_S)


class PaidAnswer(NamedTuple):
    """A whole answer, paid for."""

    request_id: UUID
    body: bytes
    content_type: str
    charged: int
    replayed: bool = False


class ModelRequest(Protocol):
    """A parsed request of any surface: what it may cost, and what is sent upstream for it.

    `body` is the client's. `asked_tokens` is None where the client left the length to the model.
    `dropped` are the names of its fields that no upstream gets unless it allows them.
    """

    body: dict[str, Any]
    asked_tokens: int | None
    dropped: tuple[str, ...]

    def hold(self, price: Price, route: Route) -> Hold: ...

    def fit(self, price: Price, route: Route, hold: int) -> int:
        """Return the answer length, for each choice, that the hold pays for."""

    def asked(self, max_tokens: int) -> Asked:
        """Return what a usage report is held against."""

    def left_out(self, attempt: Attempt) -> tuple[str, ...]:
        """Return the names of the client's fields that this attempt goes without."""

    def body_for(self, attempt: Attempt, max_tokens: int, repair: Repair = ...) -> bytes:
        """Return the bytes to send."""


@dataclass(kw_only=True, eq=False)
class PaidRequest(ABC):
    """One request from its open row to its settlement, run once by its owner task."""

    order: ModelRequest
    route: Route
    plan: RoutePlan
    ticket: RequestRecord
    spending: SpendingLimits
    admission: Admission
    bounds: Bounds
    walk: Failover[tuple[Response, bytes]]
    traceparent: str | None
    began: float
    hops: str = ""
    max_tokens: int = 0
    finishing: str | None = None
    first_byte_at: float | None = None
    _timer: Deadline | None = None
    _opened: bool = False
    _closing: bool = False
    _is_repaired: bool = False
    _asked_with: str = field(default="", repr=False)

    async def run(self) -> PaidAnswer:
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

    @property
    def has_row(self) -> bool:
        """Whether it was opened: then its row says how it ends, whatever the client is told."""
        return self._opened

    @abstractmethod
    async def produce(self) -> PaidAnswer:
        """Open, find an answer, hand it out and settle."""

    @abstractmethod
    async def read_head(self, response: Response) -> bytes:
        """Read as much of a 2xx answer as decides whether it is one.

        Raises:
            NoAnswer, AttemptFailed: It is not; the next attempt may do better.
        """

    @property
    @abstractmethod
    def search_s(self) -> float:
        """How long finding an answer may take, all attempts together."""

    @abstractmethod
    def waits(self, attempt: Attempt) -> Waits:
        """Return how long one attempt may take, and be silent."""

    def delivered(self) -> Reading | None:
        """Return what the client has received so far, as usage; None is nothing."""
        return None

    def read(
        self,
        said: Reports,
        *,
        has_text: bool,
        generated: Callable[[], int],
        counted: Usage | None = None,
    ) -> Reading:
        """Return what was used, held against what was asked for."""
        attempt = self.walk.attempt
        longest = self.max_tokens
        if attempt is not None and "max_tokens" in attempt.upstream.omit:
            longest = self.route.max_output_tokens  # it was told no length
        asked = self.order.asked(longest)
        return usage.read(said, asked, has_text=has_text, generated=generated, counted=counted)

    async def reading(
        self,
        said: Reports,
        *,
        has_text: bool,
        generated: Callable[[], int],
        answer: Callable[[], list[Any] | None],
    ) -> Reading:
        """As `read`; where something was not reported, a tokenizer counts if one is named."""
        counted = None
        if self.route.tokenizer and has_text:
            counts = said.counts(has_text=True)
            texts = answer() if counts.input is None or counts.output is None else None
            if texts is not None:
                counted = await tokenizers.count_exchange(
                    self.route.tokenizer, messages=self.order.body.get("messages"), answer=texts
                )
        return self.read(said, has_text=has_text, generated=generated, counted=counted)

    def notes(self) -> tuple[tuple[str, str], ...]:
        """Return headers that say how what was sent differs from what was asked for."""
        attempt, order = self.walk.attempt, self.order
        notes = []
        if self.max_tokens != order.asked_tokens:
            notes.append(("x-airi-max-tokens", str(self.max_tokens)))
        if dropped := order.left_out(attempt) if attempt else order.dropped:
            notes.append(("x-airi-dropped", reports.named(dropped)))
        return tuple(notes)

    def leave(self) -> None:
        """The client is gone: let the upstream finish if it is about to, else cancel it."""
        self.finish_soon("client_gone", within_s=DRAIN_S)

    def finish_soon(self, reason: str, *, within_s: float) -> None:
        """End soon, for a reason that goes on the row."""
        if self.finishing is None or reason == "shutdown":
            self.finishing = reason
        self.walk.stopped = True
        soon = asyncio.get_running_loop().time() + within_s
        # A deadline that has passed, or has been left, can no longer be moved: nothing waits.
        with contextlib.suppress(RuntimeError):
            if self._timer is not None and self._timer.when() > soon:
                self._timer.reschedule(soon)

    def time_left(self) -> float:
        """Return how many seconds the running deadline leaves."""
        when = self._timer.when() if self._timer else math.inf
        return when - asyncio.get_running_loop().time()

    def reschedule(self, when: float) -> None:
        """Move the running deadline, unless the request has to end soon anyway."""
        if self._timer is not None and self.finishing is None:
            with contextlib.suppress(RuntimeError):  # it has passed
                self._timer.reschedule(when)

    def deadline(self, seconds: float) -> Deadline:
        """Return the running deadline, which `finish_soon` can bring forward."""
        if self.finishing is not None:
            seconds = min(seconds, DRAIN_S if self.finishing == "client_gone" else 0)
        self._timer = Deadline(seconds)
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
        """Walk the plan within its deadline.

        Raises:
            DomainError: Nobody answered, or there was no time left; the row is voided and the
                hold released by then.
        """
        try:
            async with self.deadline(self.search_s):
                return await self.walk.run(self.plan, self.send)
        except TimeoutError:
            refusal = self._out_of_time()
        except DomainError as refused:
            refusal = refused
        await self.void(self.finishing or "failed", refusal)
        raise refusal

    async def send(self, attempt: Attempt, authorization: str) -> tuple[Response, bytes]:
        """Make one call; return its 2xx answer and as much of it as decides that it is one."""
        try:
            return await self._sent(attempt, authorization, repairs.known(attempt))
        except AttemptFailed as failed:
            if failed.reason in (failures.TIMEOUT, failures.CONNECT):
                failed.ends = failed.ends or not attempt.route.on_timeout
            if failed.reason == failures.TIMEOUT and failed.blame is None:
                # The first may still be at work on it, and bill for it.
                failed.ends = failed.ends or not attempt.route.ask_again_after_timeout
            raise

    async def _sent(
        self, attempt: Attempt, authorization: str, repair: Repair
    ) -> tuple[Response, bytes]:
        """Send the request as this target takes it; once more if it refuses a field of ours."""
        self._asked_with = authorization
        response = await client.post(
            attempt.upstream.url,
            authorization=authorization,
            body=self.order.body_for(attempt, self.max_tokens, repair),
            waits=self.waits(attempt),
            passed=self.hops,
        )
        try:
            if 200 <= response.status < 300:
                return response, await self._accept(response)
            fault, body = await self._fault(attempt, response)
        except BaseException:
            response.close()
            raise
        response.close()
        mended = self._repair_of(attempt, fault, repair)
        if mended is None:
            raise _failed(response.status, fault, self._words(response, body))
        answered = await self._sent(attempt, authorization, mended)
        repairs.remember(attempt, mended)
        return answered

    async def _accept(self, response: Response) -> bytes:
        if not response.decode():
            raise AttemptFailed(failures.BAD_ANSWER, status=response.status, blame=Blame.SICK)
        try:
            return await self.read_head(response)
        except NoAnswer as found:
            found.words = self._words(response, found.body)
            raise

    def _words(self, response: Response, body: bytes) -> str:
        """Return what a body says of why it is no answer, as the row keeps it."""
        return provider_words.kept(
            body,
            response.headers,
            request=self._written,
            authorization=self._asked_with,
            is_error=not 200 <= response.status < 300,
        )

    async def _fault(self, attempt: Attempt, response: Response) -> tuple[ProviderFault, bytes]:
        """Return a refusal, sorted, and its body."""
        status = response.status
        body = await client.read_start(response) if response.decode() else b""
        fault = provider_errors.fault(
            status,
            response.headers,
            body,
            request=self._written,
            trusted=status in attempt.route.trigger_codes,
            now=datetime.now(UTC),
        )
        return fault, body

    def _repair_of(self, attempt: Attempt, fault: ProviderFault, sent: Repair) -> Repair | None:
        if self._is_repaired or fault.sort is not Sort.CALLER:
            return None
        mended = repairs.needed(
            fault,
            sent,
            length_field=sent.length_field or attempt.route.max_tokens_field,
            request=self._written,
        )
        self._is_repaired = mended is not None
        return mended

    @cached_property
    def _written(self) -> str:
        """What the caller wrote, which providers quote: only looked at when one has refused."""
        written = [self.order.body.get("messages"), self.order.body.get("tools")]
        return orjson.dumps(written).decode()

    def _out_of_time(self) -> DomainError:
        if self.finishing is None:
            return self.walk.time_out()
        if self.finishing == "shutdown":
            return ServerStopping("The server is stopping.", retry_after_s=1)
        return ClientGone("The client is gone.")

    async def void(self, outcome: str, refusal: DomainError) -> None:
        """Close the row without a charge. Waits a moment for it: a retry needs the hold back."""
        settlement = self._settlement(outcome, None, completed=False)
        settlement.status = refusal.status
        settlement.error_code = refusal.code
        closing = tasks.own(self.settle(settlement))
        await asyncio.wait({closing}, timeout=RELEASE_S)

    async def settle(self, settlement: Settlement) -> Charged:
        """Close the row, then report: metrics, span, one log line."""
        self._closing = True
        used = settlement.usage
        limits.release(self.admission, tokens=used.prompt + used.completion if used else 0)
        charged = await requests.settle(settlement)
        course = Course(self.walk, self.first_byte_at, self.traceparent)
        reports.ended(course, settlement, charged)
        return charged

    def _settlement(self, outcome: str, read: Reading | None, *, completed: bool) -> Settlement:
        attempt = self.walk.attempt
        return Settlement(
            ticket=self.ticket,
            outcome=outcome,
            usage=read.usage if read else None,
            reported=read.raw if read else None,
            completed=completed,
            upstream=attempt.upstream.id if attempt else None,
            upstream_key_id=attempt.key.id if attempt else None,
            attempts=self.walk.attempts,
            failures=self.walk.rows(),
            status=200 if attempt else None,
            duration_ms=round((time.perf_counter() - self.began) * 1000),
            ttft_ms=round(self.first_byte_at * 1000) if self.first_byte_at else None,
        )


class NoAnswer(AttemptFailed):
    """A 2xx that is no answer; `body` is what came instead, or its beginning."""

    def __init__(self, response: Response, body: bytes) -> None:
        super().__init__(failures.BAD_ANSWER, status=response.status, blame=Blame.SICK)
        self.body = body[: client.MAX_ERROR_BYTES]


def _failed(status: int, fault: ProviderFault, words: str) -> AttemptFailed | UpstreamRefused:
    """Return a sorted refusal as the walk takes it; `words` are kept on the row."""
    refusal = UpstreamRefused(
        fault.status,
        fault.words or "The upstream refused the request.",
        code=fault.code,
        param=fault.param,
        answered=status,
        words=words,
    )
    if fault.sort is Sort.CALLER:
        return refusal
    is_theirs = fault.sort is Sort.ELSEWHERE or status == 413
    return AttemptFailed(
        str(status),
        status=status,
        blame=fault.sort if isinstance(fault.sort, Blame) else None,
        wait_s=fault.wait_s,
        words=words,
        told=refusal if is_theirs else None,
    )
