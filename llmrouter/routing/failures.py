"""What a failed attempt means: for the next attempt, for the key, and for the client. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from airi_server.kernel.errors import DomainError, Unavailable

CALLER_FAULTS: Final = frozenset({400, 404, 413, 422})
"""The upstream refused the request itself; another one would too."""
TIMEOUT: Final = "timeout"
CONNECT: Final = "connect"
BAD_ANSWER: Final = "bad_answer"
DECRYPT: Final = "decrypt"

_SECRETS: Final = re.compile(r"\b(?:sk|pk|key|rk)[-_][\w.-]{6,}|(?i:bearer\s+\S+)|https?://\S+")
MAX_MESSAGE: Final = 300
MAX_DIGITS: Final = 16


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
    """The upstream refused the request itself. Its status and, sanitized, its message go back."""

    code = "upstream_refused"

    def __init__(self, status: int, message: str, *, code: str | None, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status = status  # type: ignore[misc]  # the upstream decides, one of CALLER_FAULTS
        self.upstream_code = code


class AttemptFailed(Exception):
    """One attempt did not produce an answer. `reason` is a status in digits or a word.

    `counts` False: it says nothing about the key, only about this request.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry_after: str | None = None,
        counts: bool = True,
    ) -> None:
        super().__init__(reason)
        self.counts = counts
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as it is kept on the request's row."""

    upstream: str
    provider: str
    key: str
    reason: str
    status: int | None
    duration_ms: int

    @property
    def was_tried(self) -> bool:
        """Whether an upstream was called at all."""
        return self.reason != DECRYPT

    @property
    def is_timeout(self) -> bool:
        """Whether nobody answered, in time or at all."""
        return self.reason in (TIMEOUT, CONNECT)

    def row(self) -> dict[str, Any]:
        return {
            "upstream": self.upstream,
            "key": self.key,
            "reason": self.reason,
            "status": self.status,
            "durationMs": self.duration_ms,
        }


def refusal_of(failures: Sequence[Failure]) -> DomainError:
    """Return what the client is told after every attempt failed: the last failure decides."""
    tried = [failure for failure in failures if failure.was_tried]
    if not tried:
        return DecryptFailed("The service cannot use its provider keys.")
    last = tried[-1]
    timed_out = last.is_timeout
    details = {
        "triedKeys": len({(f.upstream, f.key) for f in tried}),
        "triedUpstreams": len({f.upstream for f in tried}),
        "lastStatusCode": "timeout" if timed_out else last.status,
    }
    if timed_out:
        return UpstreamTimeout("Upstream timeout", details=details)
    if last.status == 429:
        return UpstreamRateLimited("Upstream rate-limited", details=details, retry_after_s=5)
    return UpstreamUnavailable("Upstream unavailable", details=details)


def resting_refusal(reasons: Sequence[str], *, retry_after_s: float) -> DomainError:
    """Return what the client is told when every key of the route rests."""
    wait = round(max(1, min(600, retry_after_s)))
    details = {"triedKeys": 0, "triedUpstreams": 0, "lastStatusCode": None}
    if "429" in reasons:
        return UpstreamRateLimited("Upstream rate-limited", details=details, retry_after_s=wait)
    return UpstreamUnavailable("Upstream unavailable", details=details, retry_after_s=wait)


def refused(status: int, body: bytes) -> UpstreamRefused:
    """Return the caller's fault as the upstream explained it, without anything that is not theirs.

    Clients need the message (they switch tools off when a model has none), so it is passed on,
    cut to `MAX_MESSAGE` characters, without addresses and anything that looks like a key.
    """
    try:
        report = orjson.loads(body)
    except orjson.JSONDecodeError:
        report = None
    error = report.get("error", report) if isinstance(report, dict) else None
    error = error if isinstance(error, dict) else {"message": error}
    message = sanitized(error.get("message")) or "The upstream refused the request."
    return UpstreamRefused(
        status, message, code=_word(error.get("code")), param=_word(error.get("param"))
    )


def sanitized(value: Any) -> str:
    """Return a provider's words without addresses and keys, cut to `MAX_MESSAGE` characters."""
    if not isinstance(value, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in value[: 4 * MAX_MESSAGE])
    return _SECRETS.sub("…", printable)[:MAX_MESSAGE].strip()


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[\w.\[\]-]{1,64}", value) else None


def seconds_of(retry_after: str | None, *, now: datetime, default: float) -> float:
    """Return a `Retry-After` in seconds: digits or an HTTP date, garbage counts as absent."""
    if retry_after is None:
        return default
    try:
        return float(retry_after[:MAX_DIGITS])
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return default
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
