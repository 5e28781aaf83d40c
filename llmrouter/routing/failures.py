"""Failure classification: what a failed attempt means for the next one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

from airi_server.kernel.errors import DomainError, Unavailable

TIMEOUT: Final = "timeout"
CONNECT: Final = "connect"
BAD_ANSWER: Final = "bad_answer"
DECRYPT: Final = "decrypt"
ORIGIN: Final = "origin"
BROKEN_OFF: Final = "broken_off"
"""It had begun to answer, and reported an error then."""

MAX_WORDS: Final = 500
MAX_DIGITS: Final = 16
DEFAULT_RETRY_AFTER_S: Final = 5
LONGEST_WAIT_S: Final = 600.0


class Blame(StrEnum):
    """What a failure says about whom.

    The first three are held against the key, the others against the target: an upstream and its
    model.
    """

    DEAD = "dead"
    """The key is not accepted."""
    DOUBT = "doubt"
    """The key is refused something, or only this request is."""
    RATE = "rate"
    """Too often."""
    SICK = "sick"
    """The upstream answers, and not with an answer."""
    AWAY = "away"
    """Nobody could be reached."""


class UpstreamTimeout(DomainError):
    """The last attempt ran out of time or could not connect. Nothing was charged."""

    code = "GATEWAY_TIMEOUT"
    status = 504


class UpstreamUnavailable(DomainError):
    """Every attempt failed before a byte reached the client. Nothing was charged."""

    code = "BAD_GATEWAY"
    status = 502


class UpstreamRateLimited(Unavailable):
    """The last upstream said 429. Nothing was charged."""


class DecryptFailed(Unavailable):
    """No key of the route could be opened. An operator has to look."""

    code = "DECRYPT_FAILED"


class UpstreamRefused(DomainError):
    """The upstream refused the request itself. Its status and, sanitized, its message go back.

    `answered` is the status it has said so with, and `words` what is kept of it on the row.
    """

    code = "upstream_refused"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None,
        param: str | None,
        answered: int | None = None,
        words: str = "",
    ) -> None:
        super().__init__(message, param=param)
        self.status = status  # type: ignore[misc]  # the upstream decides
        self.upstream_code = code
        self.answered = answered or status
        self.words = words


class AttemptFailed(Exception):
    """One attempt did not produce an answer. `reason` is a status in digits or a word.

    `blame` None: it is held against nobody, it says something about this request only. `wait_s` is
    what the provider asked to wait, as it said so. `words` are the provider's own, for the row.
    `ends`: nobody else is to be asked. `told` is what the client is told if nothing better comes.
    """

    def __init__(  # noqa: PLR0913  a value, most of it seldom given
        self,
        reason: str,
        *,
        status: int | None = None,
        blame: Blame | None = None,
        wait_s: float | None = None,
        words: str = "",
        ends: bool = False,
        told: DomainError | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.blame = blame
        self.wait_s = wait_s
        self.words = words
        self.ends = ends
        self.told = told


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One failed attempt, as it is kept on the request's row.

    `wait_s` is how long to wait before the next one: what the provider said, or its own rest.
    """

    upstream: str
    provider: str
    key: str
    reason: str
    status: int | None
    duration_ms: int
    words: str = ""
    told: DomainError | None = None
    wait_s: float | None = None

    @property
    def was_tried(self) -> bool:
        """Whether an upstream was called at all."""
        return self.reason not in (DECRYPT, ORIGIN)

    @property
    def is_timeout(self) -> bool:
        """Whether nobody answered, in time or at all."""
        return self.reason in (TIMEOUT, CONNECT)

    def row(self) -> dict[str, Any]:
        row = {
            "upstream": self.upstream,
            "key": self.key,
            "reason": self.reason,
            "status": self.status,
            "durationMs": self.duration_ms,
        }
        if self.words:
            row["words"] = self.words[:MAX_WORDS]
        return row


def refusal_of(failures: Sequence[FailureRecord], *, waits_s: Iterable[float] = ()) -> DomainError:
    """Return what the client is told after every attempt failed: the last failure decides.

    It may come back after the shortest of all waits: those of the failures, and `waits_s`.
    """
    tried = [failure for failure in failures if failure.was_tried]
    if not tried:
        return DecryptFailed("The service cannot use its provider keys.")
    last = tried[-1]
    if last.told is not None:
        return last.told
    timed_out = last.is_timeout
    details = {
        "triedKeys": len({(f.upstream, f.key) for f in tried}),
        "triedUpstreams": len({f.upstream for f in tried}),
        "lastStatusCode": "timeout" if timed_out else last.status,
    }
    if timed_out:
        return UpstreamTimeout("Upstream timeout", details=details)
    waits = [*waits_s, *(each.wait_s for each in tried if each.wait_s is not None)]
    wait = whole_seconds(min(waits)) if waits else None
    if last.status == 429:
        wait = wait or DEFAULT_RETRY_AFTER_S
        return UpstreamRateLimited("Upstream rate-limited", details=details, retry_after_s=wait)
    return UpstreamUnavailable("Upstream unavailable", details=details, retry_after_s=wait)


def resting_refusal(reasons: Sequence[str], *, retry_after_s: float) -> DomainError:
    """Return what the client is told when everything it could be sent to refuses it for now."""
    wait = whole_seconds(retry_after_s)
    details = {"triedKeys": 0, "triedUpstreams": 0, "lastStatusCode": None}
    if "429" in reasons:
        return UpstreamRateLimited("Upstream rate-limited", details=details, retry_after_s=wait)
    return UpstreamUnavailable("Upstream unavailable", details=details, retry_after_s=wait)


def whole_seconds(wait_s: float) -> int:
    """Return a wait as clients are told it."""
    return math.ceil(max(1.0, min(LONGEST_WAIT_S, wait_s)))


def seconds_of(retry_after: str | None, *, now: datetime) -> float | None:
    """Return a `Retry-After` in seconds: digits or an HTTP date. None says nothing, as garbage."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after[:MAX_DIGITS])
    except ValueError:
        pass
    else:
        return seconds if math.isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
