"""Plan explanation: why a request for a model goes where it goes, for people. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from llmrouter.configuration import routes, tree
from llmrouter.configuration.routes import Key, Route, Upstream
from llmrouter.routing import planning
from llmrouter.routing.breakers import RULES
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from llmrouter.routing.health import Standings
from llmrouter.routing.planning import WELL, HealthVerdict, PlannedAs, Rank, RoutePlan, UnknownModel

__all__ = [
    "WELL_NOW", "ExplainedAttempt", "RouteExplanation", "UnknownModel", "bars", "explain",
    "sentence", "shares",
]  # fmt: skip

WELL_NOW: Final[Standings] = {}
"""For what was configured rather than what is so now."""


@dataclass(frozen=True, slots=True)
class ExplainedAttempt:
    """One upstream with one key.

    `position` counts the attempts from 1 and is None for a key that is skipped. `share` is the
    part of the requests, in percent, that begin here among those of its priority; None where the
    upstream has no equals, on its further keys, and on what is tried behind the others.
    """

    position: int | None
    upstream: str
    host: str
    model: str
    key: str
    why: str
    share: float | None = None
    is_well: bool = True


@dataclass(frozen=True, slots=True)
class RouteExplanation:
    """What a request for `model` tries in which order, and what it leaves out."""

    model: str
    revision: int
    attempts: tuple[ExplainedAttempt, ...]
    skipped: tuple[ExplainedAttempt, ...]

    @property
    def is_drawn(self) -> bool:
        """Whether the order differs from request to request."""
        return any(line.share is not None for line in self.attempts)


def explain(config: tree.Tree, revision: int, model: str, standings: Standings) -> RouteExplanation:
    """Explain the plan of a model under one configuration, for a caller whom nobody knows.

    Upstreams of one priority are drawn by weight for each request; here they stand as configured.

    Raises:
        UnknownModel: There is no such route; `details` lists those there are.
    """

    def ask(upstream: Upstream, key: Key) -> HealthVerdict:
        held = _held(standings, upstream, key)
        return HealthVerdict(Rank.LAST) if any(map(_is_behind, held)) else WELL

    table = routes.compile(config, revision)
    plan = planning.plan(table, model, ask, lambda: 0.0)
    route = table.llm[model]
    attempts = tuple(_attempt_lines(route, plan, standings))
    disabled = tuple(_disabled(route, config.llm.models[model], model))
    return RouteExplanation(model, revision, attempts, disabled)


def sentence(standing: BreakerState) -> str:
    """Say what is held against a key or a target, since when, until when, and who may pass."""
    since, rest = _seconds(standing.since_s), _seconds(standing.rest_s)
    whose = "key" if RULES[standing.blame].of_key else "upstream"
    begin = f"{standing.reason}: {whose} {standing.blame} for {since}"
    if not (standing.rest_s or standing.is_open):
        return f"{begin}, and not tried again since"
    if standing.is_open:
        again = f"in {rest}" if standing.rest_s else "by the next request"
        return f"{begin}, tried again {again}; last, and not for whom it has failed"
    if RULES[standing.blame].orders_at_once:
        return f"{begin}, last for {rest} more; it has failed one caller"
    return f"{begin}, last for {rest} more, for whom it has failed"


def _seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    whole = math.ceil(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if whole >= 2 * length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def _held(standings: Standings, upstream: Upstream, key: Key) -> tuple[BreakerState, ...]:
    of_target = standings.get(upstream.target_id, ())
    return (*standings.get(key.health_id, ()), *of_target)


def bars(standing: BreakerState) -> bool:
    """Whether nobody is known to be served because of it: now, or when it was last tried.

    Whoever asks too often is served again when the wait is over. What is held against one caller
    only bars nobody else.
    """
    rule = RULES[standing.blame]
    if rule.is_plain or standing.rest_s:
        return standing.is_open or rule.orders_at_once
    return standing.is_open and standing.blame is not Blame.RATE


def _is_behind(standing: BreakerState) -> bool:
    is_for_all = standing.is_open or RULES[standing.blame].orders_at_once
    return is_for_all and standing.rest_s > 0


def shares(upstreams: list[Upstream]) -> dict[int, float]:
    """Return, by position, how many percent of the requests begin at each of several equals.

    One that has no equal is left out. Whoever cannot be tried has to be left out by the caller:
    the others divide its part by their weights.
    """
    totals: Counter[int] = Counter()
    for upstream in upstreams:
        totals[upstream.priority] += upstream.weight
    counts = Counter(upstream.priority for upstream in upstreams)
    return {
        upstream.position: 100 * upstream.weight / totals[upstream.priority]
        for upstream in upstreams
        if counts[upstream.priority] > 1
    }


def _attempt_lines(
    route: Route, plan: RoutePlan, standings: Standings
) -> Iterator[ExplainedAttempt]:
    begun = {
        attempt.upstream.position: attempt.upstream
        for attempt in plan.attempts
        if attempt.place is not PlannedAs.BEHIND
    }
    share_of = shares(list(begun.values()))
    for attempt in plan.attempts:
        upstream = attempt.upstream
        held = _held(standings, upstream, attempt.key)
        is_behind = attempt.place is PlannedAs.BEHIND
        yield ExplainedAttempt(
            attempt.position,
            upstream.id,
            upstream.host,
            upstream.model,
            attempt.key.id,
            "; ".join((_rank(route, upstream), *map(sentence, held))),
            None if is_behind else share_of.pop(upstream.position, None),
            is_well=not any(map(_is_behind, held)),
        )


def _rank(route: Route, upstream: Upstream) -> str:
    equals = [each for each in route.upstreams if each.priority == upstream.priority]
    if len(equals) == 1:
        return f"priority {upstream.priority}"
    total = sum(each.weight for each in equals)
    return f"priority {upstream.priority}, drawn by weight {upstream.weight} of {total}"


def _disabled(route: Route, model: tree.LLMModel, name: str) -> Iterator[ExplainedAttempt]:
    """Yield the keys that an operator has switched off; the compiled route has forgotten them."""
    ids = {upstream.position: upstream.id for upstream in route.upstreams}
    for position, upstream in enumerate(model.upstreams, start=1):
        host = urlsplit(upstream.base_url).hostname or "unknown"
        slug = ids.get(position) or upstream.id or host
        for key in upstream.keys:
            if key.disabled:
                yield ExplainedAttempt(
                    None, slug, host, upstream.override_model or name, key.id, "disabled"
                )
