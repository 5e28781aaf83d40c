"""Walk down a plan until an upstream answers. Failover ends at the first byte."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from airi_server.kernel import sealing
from airi_server.kernel.errors import DomainError
from llmrouter import telemetry
from llmrouter.configuration.routes import Key
from llmrouter.routing import failures, health
from llmrouter.routing.failures import AttemptFailed, Failure, UpstreamRefused
from llmrouter.routing.planning import Attempt, Plan

logger = logging.getLogger(__name__)

T = TypeVar("T")
Send = Callable[[Attempt, str], Awaitable[T]]
MAX_ATTEMPTS: Final = 3
"""With every upstream failing, a request costs at most this many calls."""


@dataclass(slots=True)
class Walk(Generic[T]):
    """What happened on the way; `failures` stands also when the walk ends in a refusal.

    `attempts` is how many upstream calls were made, `attempt` the one that answered. Once
    `stopped`, no further call is made.
    """

    failures: list[Failure] = field(default_factory=list)
    attempts: int = 0
    attempt: Attempt | None = None
    stopped: bool = False
    _resting: list[Key] = field(default_factory=list)
    _interrupted: tuple[Attempt, float] | None = None

    async def run(self, plan: Plan, send: Send[T]) -> T:
        """Return the first answer that `send` brings home.

        Args:
            plan: Candidates, in order.
            send: Makes one call with an authorization header; raises `AttemptFailed`.

        Raises:
            UpstreamRefused: The caller's own fault. No other upstream was asked.
            UpstreamTimeout, UpstreamUnavailable, UpstreamRateLimited, DecryptFailed: Nobody
                answered.
            TimeoutError: It was stopped.
        """
        given_up: str | None = None
        for attempt in plan.attempts:
            if attempt.upstream.id == given_up:
                continue
            if self.attempts >= MAX_ATTEMPTS:
                break
            authorization = self._ready(attempt)
            if authorization is None:
                continue
            failed = await self._try(attempt, authorization, send)
            if not isinstance(failed, AttemptFailed):
                return failed
            if _ends_the_walk(attempt, failed):
                break
            if not _is_worth_another_key(attempt, failed):
                given_up = attempt.upstream.id
        raise self.refusal(plan)

    def time_out(self) -> DomainError:
        """Count the attempt that was cut short as a timeout; return what the client is told."""
        if self._interrupted:
            attempt, began = self._interrupted
            self._note(attempt, AttemptFailed(failures.TIMEOUT, counts=False), began)
        return failures.refusal_of(self.failures)

    async def _try(self, attempt: Attempt, authorization: str, send: Send[T]) -> T | AttemptFailed:
        began = time.perf_counter()
        self.attempts += 1
        try:
            answer = await send(attempt, authorization)
        except AttemptFailed as failed:
            self._note(attempt, failed, began)
            return failed
        except UpstreamRefused:
            health.note_success(attempt)
            raise
        except BaseException:
            self._interrupted = (attempt, began)
            health.give_back(attempt)
            raise
        health.note_success(attempt)
        self.attempt = attempt
        return answer

    def _note(self, attempt: Attempt, failed: AttemptFailed, began: float) -> None:
        if failed.counts:
            health.note_failure(attempt, failed)
        else:
            health.give_back(attempt)
        failure = Failure(
            upstream=attempt.upstream.id,
            provider=attempt.upstream.host,
            key=attempt.key.id,
            reason=failed.reason,
            status=failed.status,
            duration_ms=round((time.perf_counter() - began) * 1000),
        )
        self.failures.append(failure)
        telemetry.attempt_failed(failure)

    def _ready(self, attempt: Attempt) -> str | None:
        """Return the header to try a key with, or None if it cannot be tried now."""
        if self.stopped:
            raise TimeoutError
        authorization = self._authorization(attempt)
        if authorization is not None and not health.claim(attempt):
            self._resting.append(attempt.key)
            return None
        return authorization

    def _authorization(self, attempt: Attempt) -> str | None:
        """Open the key; one that does not open is skipped, counted and alerted."""
        key = attempt.key
        try:
            secret = sealing.open_sealed(
                key.sealed,
                purpose=sealing.PROVIDER_KEY,
                owner=key.context_model,
                name=key.id,
            )
        except sealing.CannotOpen:
            logger.exception(
                "Unable to open a provider key",
                extra={"model": key.context_model, "key": key.id},
            )
            telemetry.decrypt_failed(attempt)
            self.failures.append(
                Failure(
                    attempt.upstream.id, attempt.upstream.host, key.id, failures.DECRYPT, None, 0
                )
            )
            return None
        header = attempt.upstream.header_template.replace("{KEY}", secret.decode())
        secret[:] = bytes(len(secret))
        return header

    def refusal(self, plan: Plan) -> DomainError:
        """Return what the client is told when nothing of the plan has answered."""
        resting = [*(skipped.key for skipped in plan.skipped), *self._resting]
        if not plan.attempts and not resting:
            return failures.UpstreamUnavailable("No upstream of this model is enabled.")
        if self.failures or not resting:
            telemetry.exhausted([failure for failure in self.failures if failure.was_tried])
            return failures.refusal_of(self.failures)
        rests = [health.rest_of(key.health_id) for key in resting]
        return failures.resting_refusal(
            [reason for _, reason in rests],
            retry_after_s=min(until for until, _ in rests) - time.time(),
        )


def _ends_the_walk(attempt: Attempt, failed: AttemptFailed) -> bool:
    timed_out = failed.reason in (failures.TIMEOUT, failures.CONNECT)
    return timed_out and not attempt.route.on_timeout


def _is_worth_another_key(attempt: Attempt, failed: AttemptFailed) -> bool:
    """A status that is no trigger is the upstream's own affair: its other keys change nothing."""
    return failed.status in (None, 200) or failed.status in attempt.route.trigger_codes
