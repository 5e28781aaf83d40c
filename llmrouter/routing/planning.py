"""Planning: upstreams and keys that a request may try, in order. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, IntEnum
from itertools import groupby
from typing import Final, NamedTuple

from airi_server.kernel import validation
from airi_server.kernel.errors import DomainError
from llmrouter.configuration.routes import Key, Route, Table, Upstream

MAX_LISTED: Final = 10
Pick = Callable[[], float]
"""Draws a number from 0 up to, and without, 1: `random.random`."""


class Rank(IntEnum):
    """Where health sees a candidate among the others; the worst of several counts."""

    FIRST = 0
    """In its own place."""
    LAST = 1
    """Behind the others."""
    REFUSE = 2
    """Behind the others too, and not at all where there are none."""


class HealthVerdict(NamedTuple):
    """What health says of one candidate; of a refusal also for how long, and for which reason."""

    rank: Rank
    wait_s: float = 0.0
    reason: str = ""


WELL: Final = HealthVerdict(Rank.FIRST)
Ask = Callable[[Upstream, Key], HealthVerdict]
"""Tells how a candidate is, for one caller."""
_Candidate = tuple[Upstream, Key, int]
"""The number is the key's, from 0."""


class PlannedAs(Enum):
    """As what an attempt was planned: in its own place, behind others, or as nothing else is left.

    Behind others anybody may try: they have failed by then. Where nothing else was left from the
    beginning, who may try is rationed.
    """

    OWN = "own"
    BEHIND = "behind"
    ONLY = "only"


class UnknownModel(DomainError):
    """No route has that name. `details` lists those that exist, for whoever asks."""

    code = "unknown_model"
    status = 400

    def __init__(self, asked: str, available: Sequence[str], *, is_default: bool = False) -> None:
        named = f"'{validation.shown(asked)}'"
        said = f"auto means {named} at present, and there is no such model"
        super().__init__(
            f"{said if is_default else f'There is no model {named}'}. {listed(available)}",
            details={"requested": asked, "available": list(available)},
            param="model",
        )


class Attempt(NamedTuple):
    """One upstream with one key. `position` counts from 1.

    The indexes count from 0: upstreams as configured, keys among the enabled ones.
    """

    position: int
    route: Route
    upstream: Upstream
    key: Key
    upstream_index: int
    key_index: int
    place: PlannedAs = PlannedAs.OWN


class RoutePlan(NamedTuple):
    """Every candidate in order; whoever walks it decides how many to try."""

    attempts: tuple[Attempt, ...]
    refused: tuple[HealthVerdict, ...] = ()
    """What keeps this caller from those left out; there are none where anything else is left."""


def listed(names: Sequence[str]) -> str:
    """Return a sentence with the first of these models; SDKs show nothing but the message."""
    if not names:
        return "No model is available."
    told = ", ".join(map(validation.shown, names[:MAX_LISTED]))
    more = len(names) - MAX_LISTED
    return f"Available: {told}" + (f" and {more} more (/v1/models)." if more > 0 else ".")


def plan(
    table: Table,
    model: str,
    ask: Ask | None,
    pick: Pick,
    *,
    allowed: frozenset[str] | None = None,
    is_default: bool = False,
) -> RoutePlan:
    """Order the candidates: by priority, by a weighted draw among equals, first key first.

    What is not well comes behind what is. `ask` None: all is well. `allowed` are the models that
    whoever asks may use, and be told of; None is all. `is_default`: they said `auto`.

    Returns:
        No attempts if everything is disabled or refuses this caller.

    Raises:
        UnknownModel: There is no such route.
    """
    route = table.llm.get(model)
    if route is None:
        raise UnknownModel(model, table.usable(allowed), is_default=is_default)
    if ask is None and not route.is_weighted:
        return RoutePlan(_all_of(route))
    return _ranked(route, ask, pick)


def _all_of(route: Route) -> tuple[Attempt, ...]:
    upstream = route.upstreams[0] if route.upstreams else None
    if upstream and len(route.upstreams) == 1 and len(upstream.keys) == 1:
        # The ordinary route: nothing to loop over.
        return (Attempt(1, route, upstream, upstream.keys[0], upstream.position - 1, 0),)
    return _numbered(route, _candidates(route.upstreams), PlannedAs.OWN)


def _ranked(route: Route, ask: Ask | None, pick: Pick) -> RoutePlan:
    candidates = _candidates(_drawn(route, pick))
    if ask is None:
        return RoutePlan(_numbered(route, candidates, PlannedAs.OWN))
    found: dict[Rank, list[_Candidate]] = {rank: [] for rank in Rank}
    refused = []
    for each in candidates:
        verdict = ask(each[0], each[1])
        found[verdict.rank].append(each)
        if verdict.rank is Rank.REFUSE:
            refused.append(verdict)
    own = _numbered(route, found[Rank.FIRST], PlannedAs.OWN)
    if not own:
        return RoutePlan(_numbered(route, found[Rank.LAST], PlannedAs.ONLY), tuple(refused))
    behind = [*found[Rank.LAST], *found[Rank.REFUSE]]
    return RoutePlan((*own, *_numbered(route, behind, PlannedAs.BEHIND, after=len(own))))


def _candidates(upstreams: Iterable[Upstream]) -> Iterator[_Candidate]:
    for upstream in upstreams:
        for index, key in enumerate(upstream.keys):
            yield upstream, key, index


def _numbered(
    route: Route, candidates: Iterable[_Candidate], place: PlannedAs, *, after: int = 0
) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(position, route, upstream, key, upstream.position - 1, index, place)
        for position, (upstream, key, index) in enumerate(candidates, start=after + 1)
    )


def _drawn(route: Route, pick: Pick) -> Iterator[Upstream]:
    if not route.is_weighted:
        yield from route.upstreams
        return
    for _, equals in groupby(route.upstreams, key=lambda upstream: upstream.priority):
        yield from _shuffled(list(equals), pick)


def _shuffled(equals: list[Upstream], pick: Pick) -> Iterator[Upstream]:
    """Draw without replacement, each in proportion to its weight among those left."""
    while len(equals) > 1:
        mark = pick() * sum(upstream.weight for upstream in equals)
        for upstream in equals:
            mark -= upstream.weight
            if mark < 0:
                break
        equals.remove(upstream)
        yield upstream
    yield from equals
