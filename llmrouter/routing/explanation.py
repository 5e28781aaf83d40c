"""Why a request goes where it goes: the plan of one model, spelled out for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from llmrouter.configuration import routes, tree
from llmrouter.configuration.routes import Route, Upstream
from llmrouter.routing import planning
from llmrouter.routing.planning import Plan, Skipped, UnknownModel

__all__ = ["AWAKE", "Explanation", "Line", "Resting", "UnknownModel", "explain", "shares"]

Resting = Mapping[str, tuple[float, str]]
"""`health_id` → until when the key rests, in epoch seconds, and why."""

AWAKE: Final[Resting] = {}
"""For what was configured rather than what is so now."""


@dataclass(frozen=True, slots=True)
class Line:
    """One upstream with one key.

    `position` counts the attempts from 1 and is None for a key that is skipped. `share` is the
    part of the requests, in percent, that begin here among those of its priority; None where the
    upstream has no equals, and on its further keys.
    """

    position: int | None
    upstream: str
    host: str
    model: str
    key: str
    why: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a request for `model` tries in which order, and what it leaves out."""

    model: str
    revision: int
    attempts: tuple[Line, ...]
    skipped: tuple[Line, ...]

    @property
    def is_drawn(self) -> bool:
        """Whether the order differs from request to request."""
        return any(line.share is not None for line in self.attempts)


def explain(
    config: tree.Tree, revision: int, model: str, resting: Resting, now: float
) -> Explanation:
    """Explain the plan of a model under one configuration.

    Upstreams of one priority are drawn by weight for each request; here they stand as configured.
    `now` is in epoch seconds.

    Raises:
        UnknownModel: There is no such route; `details` lists those there are.
    """
    table = routes.compile(config, revision)
    untils = {health_id: until for health_id, (until, _) in resting.items()}
    plan = planning.plan(table, model, untils, now, lambda: 0.0)
    route = table.llm[model]
    resting_lines = (_resting_line(skipped, resting, now) for skipped in plan.skipped)
    disabled = _disabled(route, config.llm.models[model], model)
    return Explanation(
        model, revision, tuple(_attempt_lines(route, plan)), (*resting_lines, *disabled)
    )


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


def _attempt_lines(route: Route, plan: Plan) -> Iterator[Line]:
    tried = {attempt.upstream.position: attempt.upstream for attempt in plan.attempts}
    share_of = shares(list(tried.values()))
    for attempt in plan.attempts:
        upstream = attempt.upstream
        yield Line(
            attempt.position,
            upstream.id,
            upstream.host,
            upstream.model,
            attempt.key.id,
            _rank(route, upstream),
            share_of.pop(upstream.position, None),
        )


def _rank(route: Route, upstream: Upstream) -> str:
    equals = [each for each in route.upstreams if each.priority == upstream.priority]
    if len(equals) == 1:
        return f"priority {upstream.priority}"
    total = sum(each.weight for each in equals)
    return f"priority {upstream.priority}, drawn by weight {upstream.weight} of {total}"


def _resting_line(skipped: Skipped, resting: Resting, now: float) -> Line:
    upstream, key = skipped.upstream, skipped.key
    _, reason = resting[key.health_id]
    why = f"{reason}: {skipped.why(now)}"
    return Line(None, upstream.id, upstream.host, upstream.model, key.id, why)


def _disabled(route: Route, model: tree.LLMModel, name: str) -> Iterator[Line]:
    """Yield the keys that an operator has switched off; the compiled route has forgotten them."""
    ids = {upstream.position: upstream.id for upstream in route.upstreams}
    for position, upstream in enumerate(model.upstreams, start=1):
        host = urlsplit(upstream.base_url).hostname or "unknown"
        slug = ids.get(position) or upstream.id or host
        for key in upstream.keys:
            if key.disabled:
                yield Line(None, slug, host, upstream.override_model or name, key.id, "disabled")
