"""Health evidence: what is found out about keys and targets, and how instances share it. Pure.

Ages go over the wire, never instants: those are of one process, in seconds. Nothing that comes over
the wire is trusted; the worst that a wrong word does is that something is tried later.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from llmrouter.routing.failures import Blame

NEVER: Final = -math.inf
OLDEST_S: Final = 600.0
MAX_WORD: Final = 64
MAX_WORDS: Final = 500
FAILED, CLEARED, WOKEN = "failed", "cleared", "woken"


@lru_cache(maxsize=4096)
def name_of(caller: str) -> str:
    """Return the name by which instances speak of a caller."""
    return blake2b(caller.encode(), digest_size=8).hexdigest()


class FailedAttempt(NamedTuple):
    """One failed attempt as evidence; `caller` is a name as `name_of` makes it.

    `fingerprint` names the request: what one caller sends again proves nothing new.
    """

    scope: str
    blame: Blame
    caller: str
    fingerprint: str
    at: float
    dispatched_at: float
    asked_s: float | None = None
    is_probe: bool = False
    reason: str = ""


class BreakerOutcome(NamedTuple):
    """What came of a failure.

    `rest_s` is how long its caller rests. `is_first`: nothing was held against the scope before;
    `opens`: it has opened the breaker. `is_told`: other instances should hear of it.
    `contradicted_at`: a success since proves the contrary, and the failure was ignored.
    """

    rest_s: float = 0.0
    is_first: bool = False
    opens: bool = False
    is_told: bool = False
    contradicted_at: float | None = None


class BreakerState(NamedTuple):
    """How a breaker stands: what is kept for instances that start, and shown to people.

    `rest_s` counts from now: until it may be tried again, or is no longer behind the others. Nobody
    has succeeded for `since_s`, also where the rest is over. `words` are the provider's.
    """

    blame: Blame
    level: int
    rest_s: float
    since_s: float
    reason: str
    words: str = ""

    @property
    def is_open(self) -> bool:
        return self.level >= 0


def of_failure(failed: FailedAttempt, now: float) -> dict[str, Any]:
    """Return a failure as it is told."""
    return {
        "what": FAILED,
        "scope": failed.scope,
        "blame": failed.blame,
        "caller": failed.caller,
        "fingerprint": failed.fingerprint,
        "age": now - failed.at,
        "took": failed.at - failed.dispatched_at,
        "asked": failed.asked_s,
        "probe": failed.is_probe,
        "reason": failed.reason,
    }


def of_success(scope: str, since: float, now: float) -> dict[str, Any]:
    """Return as it is told that a scope has served."""
    return {"what": CLEARED, "scope": scope, "age": now - since}


def failure_in(facts: dict[str, Any], now: float) -> FailedAttempt:
    """Return a failure that was told.

    Raises:
        ValueError, TypeError, KeyError: It makes no sense.
    """
    at = now - seconds(facts["age"])
    asked = facts.get("asked")
    return FailedAttempt(
        scope=word(facts["scope"]),
        blame=Blame(facts["blame"]),
        caller=word(facts["caller"]),
        fingerprint=word(facts["fingerprint"]),
        at=at,
        dispatched_at=at - seconds(facts["took"]),
        asked_s=None if asked is None else seconds(asked),
        is_probe=facts.get("probe") is True,
        reason=word(facts.get("reason", "")),
    )


def seconds(value: Any) -> float:
    """Return a duration that was told, within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("That is no duration.")
    return min(OLDEST_S, max(0.0, float(value)))


def word(value: Any) -> str:
    """Return a name that was told."""
    if not isinstance(value, str) or len(value) > MAX_WORD:
        raise ValueError("That is no name.")
    return value


def words(value: Any) -> str:
    """Return what a provider is told to have said."""
    if not isinstance(value, str):
        raise TypeError("Those are no words.")
    return "".join(c if c.isprintable() else " " for c in value[:MAX_WORDS])
