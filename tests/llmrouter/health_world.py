"""Hours of traffic in a moment: callers, upstreams and instances by events, on the real machine.

Plans, breakers, what instances tell each other and the order of attempts are the router's own;
played are clocks, the network and what upstreams answer. A seed decides everything.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import orjson

from llmrouter.configuration import routes
from llmrouter.routing import evidence, planning
from llmrouter.routing.breakers import RULES
from llmrouter.routing.evidence import FailedAttempt, name_of
from llmrouter.routing.failover import MAX_ATTEMPTS, onward
from llmrouter.routing.failures import AttemptFailed, Blame
from llmrouter.routing.planning import Attempt, PlannedAs, Rank
from llmrouter.routing.scopes import Scopes

MODEL: Final = "m"
MESSAGE_S: Final = 0.005


@dataclass(frozen=True)
class Asked:
    """One request. `poison`: it is at fault itself."""

    caller: str
    fingerprint: str
    poison: bool
    at: float


@dataclass(frozen=True)
class Says:
    """What an upstream answers; `blame` None is an answer."""

    blame: Blame | None = None
    status: int = 200
    asked_s: float | None = None
    takes_s: float = 0.3


Answer = Callable[[str, str, Asked, float], Says]
"""By upstream, key, request and the instant at which it is asked."""


@dataclass
class Crowd:
    """Callers who ask at random, `per_s` all together. `is_innocent`: whose failures count."""

    names: list[str]
    per_s: float
    is_innocent: bool = True
    poison: float = 0.0
    fingerprint: str | None = None
    begins: float = 0.0


@dataclass
class Seen:
    """What came of a run; `noticed_s` is when a caller nobody knows is first sent elsewhere."""

    asked: int = 0
    failed: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    wasted: int = 0
    noticed_s: float | None = None

    @property
    def failed_percent(self) -> float:
        return 100 * self.failed / max(1, self.asked)


class Instance:
    """One process: its clock shows something of its own."""

    def __init__(self, world: World, offset: float) -> None:
        self.world = world
        self.offset = offset
        self.scopes = Scopes()

    @property
    def now(self) -> float:
        return self.world.now + self.offset

    def hear(self, message: bytes) -> None:
        if answer := self.scopes.learn(orjson.loads(message), self.now):
            self.world.tell(self, answer)

    def plan(self, table: routes.Table, caller: str, pick: planning.Pick) -> planning.RoutePlan:
        def ask(upstream: routes.Upstream, key: routes.Key) -> planning.HealthVerdict:
            return self.scopes.verdict(upstream, key, caller, self.now)

        self.scopes.sweep(self.now)
        return planning.plan(table, MODEL, ask if self.scopes.unwell else None, pick)


class World:
    """`answer` plays all upstreams of `table`; run it once."""

    def __init__(
        self, table: routes.Table, answer: Answer, *, seed: int, instances: int = 1,
        has_redis: bool = True,
    ) -> None:  # fmt: skip
        self.now = 0.0
        self.seen = Seen()
        self._table = table
        self._answer = answer
        self._dice = random.Random(seed)
        self._has_redis = has_redis
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.instances = [Instance(self, self._dice.uniform(0, 1e6)) for _ in range(instances)]

    def run(self, crowds: list[Crowd], *, seconds: float = 300.0) -> Seen:
        for crowd in crowds:
            self._next(crowd, crowd.begins, seconds)
        while self._events:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        return self.seen

    def tell(self, teller: Instance, facts: dict[str, Any]) -> None:
        if self._has_redis:
            message = orjson.dumps(facts)
            for each in self.instances:
                if each is not teller:
                    self._at(self.now + MESSAGE_S, partial(each.hear, message))

    def _at(self, instant: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (instant, next(self._numbers), happens))

    def _next(self, crowd: Crowd, after: float, seconds: float) -> None:
        at = after + self._dice.expovariate(crowd.per_s)
        if at < seconds:
            self._at(at, lambda: self._begin(crowd, seconds))

    def _begin(self, crowd: Crowd, seconds: float) -> None:
        self._next(crowd, self.now, seconds)
        asked = Asked(
            self._dice.choice(crowd.names),
            crowd.fingerprint or f"{self._dice.getrandbits(64):x}",
            self._dice.random() < crowd.poison,
            self.now,
        )
        instance = self._dice.choice(self.instances)
        counts = crowd.is_innocent and not asked.poison
        _Request(self, instance, asked, counts=counts).walk()


class _Request:
    def __init__(self, world: World, instance: Instance, asked: Asked, *, counts: bool) -> None:
        self._world = world
        self._instance = instance
        self._asked = asked
        self._counts = counts
        self._calls = 0
        made = instance.plan(world._table, asked.caller, world._dice.random)
        self._pending = list(made.attempts)

    def walk(self) -> None:
        while self._pending and self._calls < MAX_ATTEMPTS:
            attempt = self._pending.pop(0)
            verdict = self._instance.scopes.try_acquire(
                attempt, self._asked.caller, has_others=bool(self._pending), now=self._instance.now
            )
            if verdict.rank is Rank.FIRST:
                self._call(attempt)
                return
            if verdict.rank is Rank.LAST:
                self._pending.append(attempt._replace(place=PlannedAs.BEHIND))
        self._end(is_served=False)

    def _call(self, attempt: Attempt) -> None:
        self._calls += 1
        world, began = self._world, self._instance.now
        world.seen.calls[f"{attempt.upstream.id}/{attempt.key.id}"] += 1
        says = world._answer(attempt.upstream.id, attempt.key.id, self._asked, world.now)
        takes_s = says.takes_s * world._dice.uniform(0.5, 1.5)
        world._at(world.now + takes_s, lambda: self._answered(attempt, says, began))

    def _answered(self, attempt: Attempt, says: Says, began: float) -> None:
        scopes, now = self._instance.scopes, self._instance.now
        was_probe = scopes.give_back(attempt)
        if says.blame is None:
            for scope_id, since in (
                (attempt.key.health_id, began),
                (attempt.upstream.target_id, now),
            ):
                if scopes.succeed(scope_id, self._asked.caller, since, now):
                    self._world.tell(self._instance, evidence.of_success(scope_id, since, now))
            self._end(is_served=True)
            return
        self._world.seen.wasted += 1
        of_key = RULES[says.blame].of_key
        failed = FailedAttempt(
            scope=attempt.key.health_id if of_key else attempt.upstream.target_id,
            blame=says.blame,
            caller=name_of(self._asked.caller),
            fingerprint=self._asked.fingerprint,
            at=now,
            dispatched_at=began,
            asked_s=says.asked_s,
            is_probe=was_probe,
            reason=str(says.status),
        )
        if scopes.fail(failed).is_told:
            self._world.tell(self._instance, evidence.of_failure(failed, now))
        self._notice(attempt, now)
        word = AttemptFailed(str(says.status), status=says.status, blame=says.blame)
        self._pending = onward(self._pending, attempt, word)
        self.walk()

    def _notice(self, attempt: Attempt, now: float) -> None:
        seen = self._world.seen
        if seen.noticed_s is None:
            verdict = self._instance.scopes.verdict(attempt.upstream, attempt.key, "nobody", now)
            if verdict.rank is not Rank.FIRST:
                seen.noticed_s = self._world.now

    def _end(self, *, is_served: bool) -> None:
        if not self._counts:
            return
        world = self._world
        could = is_served or any(
            world._answer(upstream.id, key.id, self._asked, world.now).blame is None
            for upstream in world._table.llm[MODEL].upstreams
            for key in upstream.keys
        )
        world.seen.asked += 1 if could else 0
        world.seen.failed += 1 if could and not is_served else 0
