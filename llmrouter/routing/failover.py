"""Failover: try the attempts of a plan until one answers. It ends at the first byte."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from airi_server.kernel import sealing
from airi_server.kernel.errors import DomainError
from llmrouter import telemetry
from llmrouter.configuration import provider_keys
from llmrouter.routing import failures, health
from llmrouter.routing.failures import AttemptFailed, Blame, FailureRecord, UpstreamRefused
from llmrouter.routing.planning import Attempt, HealthVerdict, PlannedAs, Rank, RoutePlan

logger = logging.getLogger(__name__)

T = TypeVar("T")
Send = Callable[[Attempt, str], Awaitable[T]]
MAX_ATTEMPTS: Final = 3
"""With every upstream failing, a request costs at most this many calls."""


@dataclass(slots=True)
class Failover(Generic[T]):
    """What happened on the way; `failures` stands also when the walk ends in a refusal.

    `ended_by` is what ended it without leading on: the caller's own fault, or an error of the one
    that had begun to answer.

    `caller` is who pays, and `fingerprint` names what is asked; it is called when something has
    failed. `attempts` is how many upstream calls were made, `attempt` the one that answered. Once
    `stopped`, no further call is made.
    """

    caller: str
    fingerprint: Callable[[], str]
    failures: list[FailureRecord] = field(default_factory=list)
    ended_by: FailureRecord | None = None
    attempts: int = 0
    attempt: Attempt | None = None
    stopped: bool = False
    _refused: list[HealthVerdict] = field(default_factory=list)
    _interrupted: tuple[Attempt, float] | None = None

    async def run(self, plan: RoutePlan, send: Send[T]) -> T:
        """Return the first answer that `send` brings home.

        Args:
            plan: Candidates, in order.
            send: Makes one call with an authorization header and returns once the answer has
                begun; raises `AttemptFailed`. What it repairs by asking the same again is its own.

        Raises:
            UpstreamRefused: The caller's own fault. No other upstream was asked.
            UpstreamTimeout, UpstreamUnavailable, UpstreamRateLimited, DecryptFailed: Nobody
                answered.
            TimeoutError: It was stopped.
        """
        self._refused.extend(plan.refused)
        pending = list(plan.attempts)
        while pending and self.attempts < MAX_ATTEMPTS:
            attempt = pending.pop(0)
            authorization = self._ready(attempt, pending)
            if authorization is None:
                continue
            failed = await self._try(attempt, authorization, send)
            if not isinstance(failed, AttemptFailed):
                return failed
            if failed.ends:
                break
            pending = onward(pending, attempt, failed)
        raise self.refusal()

    def rows(self) -> list[dict[str, Any]]:
        """Return every attempt that failed, as the request's row keeps it."""
        rows = [failure.row() for failure in self.failures]
        if self.ended_by is not None:
            rows.append(self.ended_by.row())
        return rows

    def break_off(self, words: str) -> None:
        """Note that the one that answered has reported an error since; it blames nobody."""
        if self.attempt is not None:
            now = time.monotonic()
            self.ended_by = _failure(self.attempt, failures.BROKEN_OFF, None, words, now)

    def time_out(self) -> DomainError:
        """Count the attempt that was cut short as a timeout; return what the client is told."""
        if self._interrupted:
            attempt, began = self._interrupted
            self._note(attempt, AttemptFailed(failures.TIMEOUT), began)
        return failures.refusal_of(self.failures)

    async def _try(self, attempt: Attempt, authorization: str, send: Send[T]) -> T | AttemptFailed:
        began = time.monotonic()
        self.attempts += 1
        try:
            answer = await send(attempt, authorization)
        except AttemptFailed as failed:
            self._note(attempt, failed, began)
            return failed
        except UpstreamRefused as refused:
            # Whether it serves others is not known: it may fail only when it has work to do.
            health.give_back(attempt)
            status = refused.answered
            self.ended_by = _failure(attempt, str(status), status, refused.words, began)
            raise
        except BaseException:
            self._interrupted = (attempt, began)
            health.give_back(attempt)
            raise
        health.note_success(attempt, self.caller, began)
        self.attempt = attempt
        return answer

    def _note(self, attempt: Attempt, failed: AttemptFailed, began: float) -> None:
        rest_s = health.note_failure(
            attempt, failed, caller=self.caller, fingerprint=self.fingerprint, began=began
        )
        waits = [each for each in (failed.wait_s, rest_s or None) if each is not None]
        failure = replace(
            _failure(attempt, failed.reason, failed.status, failed.words, began),
            told=failed.told,
            wait_s=min(waits, default=None),
        )
        self.failures.append(failure)
        telemetry.attempt_failed(failure)

    def _ready(self, attempt: Attempt, pending: list[Attempt]) -> str | None:
        """Return the header to try a key with, or None if it cannot be tried now.

        One that was well when the plan was made goes behind those that still are.
        """
        if self.stopped:
            raise TimeoutError
        authorization = self._authorization(attempt)
        if authorization is None:
            return None
        verdict = health.try_acquire(attempt, self.caller, has_others=bool(pending))
        if verdict.rank is Rank.FIRST:
            return authorization
        if verdict.rank is Rank.LAST:
            pending.append(attempt._replace(place=PlannedAs.BEHIND))
        else:
            self._refused.append(verdict)
        return None

    def _authorization(self, attempt: Attempt) -> str | None:
        """Open the key for this upstream; one that does not open is skipped, counted, alerted."""
        key, upstream = attempt.key, attempt.upstream
        try:
            return provider_keys.authorization(
                key.sealed,
                model=key.context_model,
                key_id=key.id,
                origin=upstream.origin,
                template=upstream.header_template,
            )
        except sealing.CannotOpen as closed:
            is_elsewhere = isinstance(closed, sealing.WrongOrigin)
            logger.exception(
                "A provider key was entered for another origin"
                if is_elsewhere
                else "Unable to open a provider key",
                extra={"model": key.context_model, "key": key.id},
            )
            telemetry.decrypt_failed(attempt)
            reason = failures.ORIGIN if is_elsewhere else failures.DECRYPT
            self.failures.append(FailureRecord(upstream.id, upstream.host, key.id, reason, None, 0))
            return None

    def refusal(self) -> DomainError:
        """Return what the client is told when nothing of the plan has answered."""
        tried = [failure for failure in self.failures if failure.was_tried]
        if tried or (self.failures and not self._refused):
            telemetry.exhausted(tried)
            waits_s = [verdict.wait_s for verdict in self._refused]
            return failures.refusal_of(self.failures, waits_s=waits_s)
        return refusal_without_attempts(self._refused)


def _failure(
    attempt: Attempt, reason: str, status: int | None, words: str, began: float
) -> FailureRecord:
    return FailureRecord(
        upstream=attempt.upstream.id,
        provider=attempt.upstream.host,
        key=attempt.key.id,
        reason=reason,
        status=status,
        duration_ms=round((time.monotonic() - began) * 1000),
        words=words,
    )


def refusal_without_attempts(refused: Sequence[HealthVerdict]) -> DomainError:
    """Return what the client is told where nothing could be tried."""
    if not refused:
        return failures.UpstreamUnavailable("No upstream of this model is enabled.")
    return failures.resting_refusal(
        [verdict.reason for verdict in refused],
        retry_after_s=min(verdict.wait_s for verdict in refused),
    )


def onward(pending: list[Attempt], attempt: Attempt, failed: AttemptFailed) -> list[Attempt]:
    """Return what is left to try after a failure, in its order.

    A key's failure leads to the upstream's next key. What is the upstream's, or may be, leads to
    the next upstream: three keys of a dead one would be all the attempts there are.
    """
    same = [each for each in pending if each.upstream.position == attempt.upstream.position]
    others = [each for each in pending if each.upstream.position != attempt.upstream.position]
    match failed.blame:
        case Blame.DEAD | Blame.DOUBT | Blame.RATE:
            return pending
        case Blame.AWAY:
            return others
        case Blame.SICK:
            return [*others, *same]
    return [*others, *same] if failed.reason == failures.TIMEOUT else pending
