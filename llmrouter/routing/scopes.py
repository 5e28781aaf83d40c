"""Blame: what is held against keys and targets, by evidence. Pure: no clock.

A target is an upstream with its model. The instants of one process are its own, in seconds, and
are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from llmrouter.configuration.routes import Key, Upstream
from llmrouter.routing import evidence
from llmrouter.routing.breakers import (
    LONGEST_QUIET_S,
    REMEMBERED_S,
    RULES,
    SHORTEST_QUIET_S,
    Breaker,
)
from llmrouter.routing.evidence import (
    NEVER,
    BreakerOutcome,
    BreakerState,
    FailedAttempt,
    name_of,
)
from llmrouter.routing.failures import Blame
from llmrouter.routing.planning import WELL, Attempt, HealthVerdict, PlannedAs, Rank

MAX_KNOWN: Final = 32
MAX_SCOPES: Final = 10_000
"""Beyond it nothing is believed of scopes that are not known here."""


@dataclass(slots=True)
class HealthScope:
    """A key or a target: when it last served, how often it does, whom, and what is against it."""

    ok_at: float = NEVER
    """The latest instant at which it has proved to serve."""
    heard_at: float = NEVER
    gap_s: float = LONGEST_QUIET_S
    """The moving mean between two successes."""
    known: dict[str, None] = field(default_factory=dict)
    breakers: dict[Blame, Breaker] = field(default_factory=dict)

    def hear(self, caller: str, since: float, now: float) -> None:
        """Note a success; it proves that the scope served at `since`."""
        gap_s = now - self.heard_at
        if gap_s > LONGEST_QUIET_S:  # noqa: PLR1730  this is the hot path, where a call is much
            gap_s = LONGEST_QUIET_S
        self.gap_s += (gap_s - self.gap_s) * 0.125
        self.heard_at = now
        if since > self.ok_at:  # noqa: PLR1730  likewise
            self.ok_at = since
        known = self.known
        known.pop(caller, None)
        known[caller] = None
        if len(known) > MAX_KNOWN:
            del known[next(iter(known))]

    @property
    def usual_s(self) -> float:
        """Return how long it may take until somebody succeeds again."""
        return min(LONGEST_QUIET_S, max(SHORTEST_QUIET_S, 10 * self.gap_s))


class Scopes:
    """Every scope of one process."""

    def __init__(self) -> None:
        self._scopes: dict[str, HealthScope] = {}
        self.unwell: set[str] = set()
        """Those that anything is held against: while there are none nothing has to be asked."""
        self.lapsed: set[str] = set()
        """Those that nothing is held against any longer, though nobody has succeeded since."""
        self._swept_at = NEVER

    def verdict(self, upstream: Upstream, key: Key, caller: str, now: float) -> HealthVerdict:
        """Return how a candidate is for a caller: the worst that is held against it decides."""
        name = name_of(caller)
        return max(
            (
                breaker.verdict(name, is_known=is_known, now=now)
                for breaker, is_known in self._held(upstream, key, caller)
            ),
            key=_badness,
            default=WELL,
        )

    def _held(self, upstream: Upstream, key: Key, caller: str) -> Iterator[tuple[Breaker, bool]]:
        """Yield what is held against a candidate, and whether the caller was served there."""
        for scope_id in (key.health_id, upstream.target_id):
            if scope_id in self.unwell:
                scope = self._scopes[scope_id]
                is_known = caller in scope.known
                for breaker in scope.breakers.values():
                    yield breaker, is_known

    def try_acquire(
        self, attempt: Attempt, caller: str, *, has_others: bool, now: float
    ) -> HealthVerdict:
        """Let an attempt through, or say what keeps it: a plan is old when it is walked.

        Returns:
            Rank `FIRST`: it may go, perhaps as a probe; follow it with what came of it. `LAST`: its
            turn is after the others. `REFUSE`: not now.
        """
        verdict = self.verdict(attempt.upstream, attempt.key, caller, now)
        is_rationed = attempt.place is not PlannedAs.BEHIND
        if verdict.rank is not Rank.FIRST and is_rationed:
            if attempt.place is PlannedAs.OWN and has_others:
                return HealthVerdict(Rank.LAST)
            if verdict.rank is Rank.REFUSE:
                return verdict
        name = name_of(caller)
        for breaker, is_known in self._held(attempt.upstream, attempt.key, caller):
            breaker.enter(name, attempt, is_known=is_known, is_rationed=is_rationed, now=now)
        return WELL

    def give_back(self, attempt: Attempt) -> bool:
        """Let others probe; return whether this attempt was a probe."""
        given = [
            breaker.give_back(attempt)
            for breaker, _ in self._held(attempt.upstream, attempt.key, "")
        ]
        return any(given)

    def succeed(self, scope_id: str, caller: str, since: float, now: float) -> bool:
        """Note that a scope served a caller at `since`; return whether that clears anything."""
        scope = self._scopes.get(scope_id)
        if scope is None:
            scope = self._scopes[scope_id] = HealthScope()
        scope.hear(caller, since, now)
        if scope_id in self.unwell:
            return self._contradict(scope_id, scope, since)
        return bool(self.lapsed) and self._recover(scope_id)

    def clear(self, scope_id: str, since: float) -> bool:
        """Note that a scope served somebody elsewhere; return whether that clears anything."""
        scope = self._scopes.get(scope_id)
        if scope is None:
            return False
        scope.ok_at = max(scope.ok_at, since)
        scope.heard_at = max(scope.heard_at, since)
        if scope_id in self.unwell:
            return self._contradict(scope_id, scope, since)
        return self._recover(scope_id)

    def lapse(self, scope_id: str) -> None:
        """Note that a scope has failed too long ago to be held against it, and not served since."""
        if len(self.lapsed) < MAX_SCOPES:
            self.lapsed.add(scope_id)

    def _recover(self, scope_id: str) -> bool:
        """Note that one that had lapsed serves; return whether it had."""
        is_new = scope_id in self.lapsed
        self.lapsed.discard(scope_id)
        return is_new

    def _contradict(self, scope_id: str, scope: HealthScope, since: float) -> bool:
        found = False
        for blame, breaker in list(scope.breakers.items()):
            if breaker.is_over(since):
                del scope.breakers[blame]
                found = True
            elif breaker.contradict(since):
                found = True
                if not breaker.witnesses:
                    del scope.breakers[blame]
        if not scope.breakers:
            self.unwell.discard(scope_id)
        return found

    def fail(self, failed: FailedAttempt) -> BreakerOutcome:
        """Hold a failure against its scope."""
        scope = self._found(failed.scope)
        if scope is None:
            return BreakerOutcome()
        if failed.at <= scope.ok_at:
            return BreakerOutcome(contradicted_at=scope.ok_at)
        rule = RULES[failed.blame]
        breaker = scope.breakers.get(failed.blame)
        is_first = breaker is None
        if breaker is None:
            breaker = scope.breakers[failed.blame] = Breaker(rule, since=failed.at)
            self.unwell.add(failed.scope)
        outcome = breaker.add(failed, heard_at=scope.heard_at, usual_s=scope.usual_s)
        return outcome._replace(is_first=is_first)

    def learn(self, facts: dict[str, Any], now: float) -> dict[str, Any] | None:
        """Take another instance's word; return what to answer, which is that it is mistaken.

        Raises:
            ValueError, TypeError, KeyError: It makes no sense.
        """
        if facts["what"] == evidence.FAILED:
            failed = evidence.failure_in(facts, now)
            since = self.fail(failed).contradicted_at
            return None if since is None else evidence.of_success(failed.scope, since, now)
        scope_id = evidence.word(facts["scope"])
        if facts["what"] == evidence.CLEARED:
            self.clear(scope_id, now - evidence.seconds(facts["age"]))
        elif facts["what"] == evidence.WOKEN:
            self.wake_one(scope_id)
        return None

    def _found(self, scope_id: str) -> HealthScope | None:
        scope = self._scopes.get(scope_id)
        if scope is None and len(self._scopes) < MAX_SCOPES:
            scope = self._scopes[scope_id] = HealthScope()
        return scope

    def adopt(self, scope_id: str, standing: BreakerState, now: float) -> None:
        """Take over how a breaker stands elsewhere, unless more is known here."""
        scope = self._found(scope_id)
        if scope is None:
            return
        rule, since = RULES[standing.blame], now - standing.since_s
        if standing.blame in scope.breakers or since <= scope.ok_at:
            return
        if not (standing.is_open or rule.orders_at_once):
            return
        breaker = Breaker(rule, since, standing.reason, failed_at=now, filled_at=now)
        breaker.level = standing.level
        breaker.rest_s = rule.rest_s(standing.level, standing.rest_s)
        if breaker.is_open:
            breaker.open_until = now + standing.rest_s
        else:
            breaker.last_until = now + standing.rest_s
        scope.breakers[standing.blame] = breaker
        self.unwell.add(scope_id)

    def standing(self, scope_id: str, blame: Blame, now: float) -> BreakerState | None:
        """Return how a breaker stands; None if nothing is held against the scope."""
        scope = self._scopes.get(scope_id)
        breaker = scope.breakers.get(blame) if scope else None
        return breaker.standing(blame, now) if breaker else None

    def standings(self, now: float) -> Iterator[tuple[str, BreakerState]]:
        """Yield how every breaker stands. From any thread: what changes meanwhile may be missed."""
        for scope_id in list(self.unwell):
            scope = self._scopes.get(scope_id)
            for blame, breaker in list(scope.breakers.items()) if scope else ():
                yield scope_id, breaker.standing(blame, now)

    def sweep(self, now: float) -> None:
        """Forget, at most once a second, what is too old to be believed."""
        if now < self._swept_at + 1.0:
            return
        self._swept_at = now
        for scope_id in list(self.unwell):
            breakers = self._scopes[scope_id].breakers
            for blame in [blame for blame, each in breakers.items() if each.expire(now)]:
                del breakers[blame]
                self.lapse(scope_id)
            if not breakers:
                self.unwell.discard(scope_id)
                if self._scopes[scope_id].heard_at == NEVER:
                    del self._scopes[scope_id]

    def wake_one(self, scope_id: str) -> None:
        """Hold nothing against a scope any longer; whoever reads it meanwhile reads the old."""
        scope = self._scopes.get(scope_id)
        if scope is not None:
            scope.breakers = {}
        self.unwell.discard(scope_id)
        self.lapsed.discard(scope_id)

    def wake(self, now: float) -> None:
        """Hold nothing against anybody any longer; and forget scopes that nobody uses."""
        self.unwell.clear()
        self.lapsed.clear()
        for scope_id, scope in list(self._scopes.items()):
            scope.breakers.clear()
            if scope.heard_at + REMEMBERED_S < now:
                del self._scopes[scope_id]


def _badness(verdict: HealthVerdict) -> tuple[int, float]:
    return verdict.rank, verdict.wait_s
