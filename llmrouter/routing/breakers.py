"""Circuit breakers: what failures of one sort prove about one key or target. Pure: no clock.

Failures of one caller prove nothing to others: a breaker opens after those of two callers'
different requests with no success between. It then puts its scope behind the others; where nothing
else is left it refuses who has failed there, and rations who has not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from llmrouter.routing.evidence import NEVER, BreakerOutcome, BreakerState, FailedAttempt
from llmrouter.routing.failures import Blame
from llmrouter.routing.planning import WELL, HealthVerdict, Rank

CLOSED: Final = -1
MAX_WITNESSES: Final = 64
MAX_FINGERPRINTS: Final = 3
REMEMBERED_S: Final = 600.0
"""So long a failure counts, and an open breaker is kept that nobody has tried."""
LEASE_S: Final = 30.0
BUCKET: Final = 4.0
"""So many that are neither known nor witnesses pass at once, and one a second after that."""
WITNESS_EVERY_S: Final = 2.0
"""So often some witness may try a target that is open."""
TELL_EVERY_S: Final = 1.0
LONGEST_ASKED_S: Final = 600.0
SHORTEST_QUIET_S: Final = 1.0
LONGEST_QUIET_S: Final = 10.0
_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class BreakRule:
    """How failures of one sort are held against their scope.

    A caller rests after `after` different requests of its own (failures, where no request causes
    them), for `first_s`, `factor` times longer each time up to `longest_s`. `is_quiet`: only while
    nobody succeeds. `orders_at_once`: the first failure already puts the scope behind others.
    `is_plain`: whoever fails proves it.
    """

    of_key: bool
    after: int
    first_s: float
    factor: float
    longest_s: float
    is_quiet: bool = False
    orders_at_once: bool = False
    is_plain: bool = False
    is_asked: bool = False
    by_request: bool = True

    def rest_s(self, level: int, asked_s: float | None) -> float:
        if self.is_asked and asked_s is not None:
            return min(LONGEST_ASKED_S, max(1.0, asked_s))
        return min(self.longest_s, self.first_s * self.factor ** min(_DOUBLINGS, max(0, level)))


RULES: Final[dict[Blame, BreakRule]] = {
    Blame.DEAD: BreakRule(
        of_key=True, after=1, first_s=10, factor=2, longest_s=600, orders_at_once=True,
        is_plain=True,
    ),
    Blame.DOUBT: BreakRule(of_key=True, after=3, first_s=5, factor=4, longest_s=300, is_quiet=True),
    Blame.RATE: BreakRule(
        of_key=True, after=1, first_s=5, factor=1, longest_s=600, orders_at_once=True,
        is_asked=True,
    ),
    Blame.SICK: BreakRule(of_key=False, after=3, first_s=2, factor=2, longest_s=60, is_quiet=True),
    Blame.AWAY: BreakRule(
        of_key=False, after=2, first_s=2, factor=2, longest_s=60, orders_at_once=True,
        is_plain=True, by_request=False,
    ),
}  # fmt: skip


@dataclass(slots=True)
class Witness:
    """A caller who has failed: the newest of its requests with when each failed, and its rest."""

    failures: dict[str, float] = field(default_factory=dict)
    level: int = CLOSED
    retry_at: float = NEVER
    refused_until: float = NEVER
    grown_at: float = NEVER
    told_at: float = NEVER

    @property
    def failed_at(self) -> float:
        return max(self.failures.values(), default=NEVER)

    def add(self, fingerprint: str, at: float) -> None:
        self.failures.pop(fingerprint, None)
        self.failures[fingerprint] = at
        while len(self.failures) > MAX_FINGERPRINTS:
            del self.failures[next(iter(self.failures))]

    def rest(self, failed: FailedAttempt, rule: BreakRule) -> None:
        """Rest; for longer only if it was sent after the last time that it grew."""
        grows = failed.dispatched_at >= self.grown_at
        if grows:
            self.level += 1
            self.grown_at = failed.at
        if grows or rule.is_asked:
            asked = failed.at + rule.rest_s(self.level, failed.asked_s)
            self.retry_at = max(self.retry_at, asked)


@dataclass(slots=True)
class Breaker:
    """What one sort of failure holds against one scope."""

    rule: BreakRule
    since: float
    reason: str = ""
    witnesses: dict[str, Witness] = field(default_factory=dict)
    failed_at: float = NEVER
    level: int = CLOSED
    rest_s: float = 0.0
    open_until: float = NEVER
    last_until: float = NEVER
    grown_at: float = NEVER
    prober: object | None = None
    lease_until: float = NEVER
    tokens: float = BUCKET
    filled_at: float = NEVER
    slot_at: float = NEVER

    @property
    def is_open(self) -> bool:
        return self.level > CLOSED

    def verdict(self, caller: str, *, is_known: bool, now: float) -> HealthVerdict:
        """Return how its scope is for a caller."""
        witness = self.witnesses.get(caller)
        if self.is_open:
            if self._may_probe(witness, now):
                return WELL
        elif now >= max(self.last_until, witness.retry_at if witness else NEVER):
            return WELL
        wait_s = self._wait_s(witness, is_known=is_known, now=now)
        if wait_s <= 0:
            return HealthVerdict(Rank.LAST)
        return HealthVerdict(Rank.REFUSE, wait_s, self.reason)

    def _may_probe(self, witness: Witness | None, now: float) -> bool:
        """Say whether this one may find out for all; a witness has to let others go first."""
        if self.prober is not None and now < self.lease_until:
            return False
        return now >= self.open_until + (self.rest_s if witness else 0.0)

    def _wait_s(self, witness: Witness | None, *, is_known: bool, now: float) -> float:
        """Return how long a caller has to wait where nothing else is left; 0 is not at all."""
        if witness is None:
            return 1.0 - self._filled(now) if self.is_open and not is_known else 0.0
        if self.is_open:
            until = witness.retry_at
            return (until if self.rule.of_key else min(until, self.slot_at)) - now
        return witness.refused_until - now if self.rule.of_key else 0.0

    def _filled(self, now: float) -> float:
        return min(BUCKET, self.tokens + now - self.filled_at)

    def enter(
        self, caller: str, attempt: object, *, is_known: bool, is_rationed: bool, now: float
    ) -> None:
        """Let an attempt through: as the probe, from the bucket, or in a witness's turn."""
        if not self.is_open:
            return
        witness = self.witnesses.get(caller)
        if self._may_probe(witness, now):
            self.prober, self.lease_until = attempt, now + LEASE_S
        elif not is_rationed:
            return
        elif witness is None:
            if not is_known:
                self.tokens, self.filled_at = self._filled(now) - 1.0, now
        elif now < witness.retry_at:
            self.slot_at = now + WITNESS_EVERY_S

    def give_back(self, attempt: object) -> bool:
        """Let others probe; return whether this attempt was the probe."""
        was_probe = self.prober is attempt
        if was_probe:
            self.prober = None
        return was_probe

    def add(self, failed: FailedAttempt, *, heard_at: float, usual_s: float) -> BreakerOutcome:
        """Hold a failure against the scope.

        `heard_at` is when it last served anybody, and `usual_s` within what time it does.
        """
        quiet_since = max(heard_at, self.since)
        is_new = failed.caller not in self.witnesses
        witness = self.witnesses.pop(failed.caller, None) or Witness()
        self.witnesses[failed.caller] = witness
        while len(self.witnesses) > MAX_WITNESSES:
            del self.witnesses[next(iter(self.witnesses))]
        # Without a request that causes it, each failure is evidence of its own.
        witness.add(failed.fingerprint if self.rule.by_request else repr(failed.at), failed.at)
        self.failed_at = max(self.failed_at, failed.at)
        self.reason = failed.reason or self.reason
        is_quiet = not self.rule.is_quiet or failed.at - quiet_since >= usual_s
        if len(witness.failures) >= self.rule.after and is_quiet:
            self._rest(witness, failed, quiet_since, usual_s)
        opens = self._weigh(failed, is_new=is_new, is_quiet=is_quiet)
        if self.rule.orders_at_once:
            rest_s = self.rule.rest_s(witness.level, failed.asked_s)
            self.last_until = max(self.last_until, failed.at + rest_s)
        is_told = opens or failed.is_probe or failed.at >= witness.told_at + TELL_EVERY_S
        if is_told:
            witness.told_at = failed.at
        return BreakerOutcome(max(0.0, witness.retry_at - failed.at), opens=opens, is_told=is_told)

    def _rest(
        self, witness: Witness, failed: FailedAttempt, quiet_since: float, usual_s: float
    ) -> None:
        """Have a caller rest: behind others soon, refused only if nobody has succeeded for long.

        While only success could tell, it rests again after it has been free to have some.
        """
        is_plain = self.is_open or not self.rule.is_quiet
        if is_plain or failed.at - max(quiet_since, witness.retry_at) >= usual_s:
            witness.rest(failed, self.rule)
        if is_plain or failed.at - quiet_since >= LONGEST_QUIET_S:
            witness.refused_until = witness.retry_at

    def _weigh(self, failed: FailedAttempt, *, is_new: bool, is_quiet: bool) -> bool:
        """Open, or rest again after a probe that failed; return whether it has opened."""
        opens = not self.is_open and is_quiet and self._is_proven()
        if opens:
            self.level, self.filled_at = 0, failed.at
        elif not (self.is_open and failed.is_probe):
            return False
        elif (is_new or self.rule.is_plain) and failed.dispatched_at >= self.grown_at:
            self.level += 1
        else:
            self.open_until = failed.at + self.rest_s
            return False
        self.grown_at = failed.at
        self.rest_s = self.rule.rest_s(self.level, failed.asked_s)
        self.open_until = failed.at + self.rest_s
        return opens

    def _is_proven(self) -> bool:
        """Two failures that no request causes, or two callers with two different requests."""
        if not self.rule.by_request:
            return sum(len(each.failures) for each in self.witnesses.values()) > 1
        fingerprints = {name for each in self.witnesses.values() for name in each.failures}
        return len(self.witnesses) > 1 and len(fingerprints) > 1

    def contradict(self, since: float) -> bool:
        """Forget what failed until then; return whether anything was forgotten."""
        found = False
        for name, witness in list(self.witnesses.items()):
            kept = {each: at for each, at in witness.failures.items() if at > since}
            found = found or len(kept) < len(witness.failures)
            if kept:
                witness.failures = kept
            else:
                del self.witnesses[name]
        return found

    def is_over(self, since: float) -> bool:
        """Say whether a success from then on proves the contrary of everything held here."""
        return self.failed_at <= since

    def expire(self, now: float) -> bool:
        """Forget who failed long ago; return whether nothing is left to be remembered."""
        for name, witness in list(self.witnesses.items()):
            if witness.failed_at + REMEMBERED_S < now and witness.retry_at < now:
                del self.witnesses[name]
        if self.is_open:
            return self.open_until + REMEMBERED_S < now
        return not self.witnesses and self.last_until < now

    def standing(self, blame: Blame, now: float) -> BreakerState:
        if self.is_open:
            ends = self.open_until
        else:
            ends = max(self.last_until, *(each.retry_at for each in self.witnesses.values()), NEVER)
        rest_s = max(0.0, ends - now)
        return BreakerState(blame, self.level, rest_s, max(0.0, now - self.since), self.reason)
