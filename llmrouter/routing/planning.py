"""Which upstreams and keys a request may try, in which order. Pure: no clock, no chance, no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from airi_server.kernel.errors import DomainError
from llmrouter.configuration.routes import Key, Route, Table, Upstream

Pick = Callable[[], float]
"""Draws a number from 0 up to, and without, 1: `random.random`."""


class UnknownModel(DomainError):
    """No route has that name. `details` lists those that exist."""

    code = "unknown_model"
    status = 400


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


def rest(until: float, now: float) -> str:
    """Say how long a key rests; both in epoch seconds, infinity waits for an operator."""
    if math.isinf(until):
        return "rests until an operator looks at it"
    return f"rests for another {math.ceil(until - now)} s"


class Skipped(NamedTuple):
    """A key that rests until an instant, in epoch seconds; infinity waits for an operator."""

    upstream: Upstream
    key: Key
    upstream_index: int
    key_index: int
    until: float

    def why(self, now: float) -> str:
        return rest(self.until, now)


class Plan(NamedTuple):
    """Every candidate in order; whoever walks it decides how many to try."""

    attempts: tuple[Attempt, ...]
    skipped: tuple[Skipped, ...]


def plan(table: Table, model: str, resting: Mapping[str, float], now: float, pick: Pick) -> Plan:
    """Order the candidates: by priority, by a weighted draw among equals, first key first.

    `resting` maps a `health_id` to the instant, in epoch seconds, until which that key rests.

    Returns:
        No attempts if everything rests or is disabled; `skipped` says what rests.

    Raises:
        UnknownModel: There is no such route.
    """
    route = table.llm.get(model)
    if route is None:
        raise UnknownModel(
            "unknown_model",
            details={"requested": model, "available": list(table.available)},
            param="model",
        )
    if not resting and not route.is_weighted:
        return Plan(_all_of(route), ())
    return _without_resting(route, resting, now, pick)


def _all_of(route: Route) -> tuple[Attempt, ...]:
    upstream = route.upstreams[0] if route.upstreams else None
    if upstream and len(route.upstreams) == 1 and len(upstream.keys) == 1:
        # The ordinary route: nothing to loop over.
        return (Attempt(1, route, upstream, upstream.keys[0], upstream.position - 1, 0),)
    candidates = [
        (upstream, key, index)
        for upstream in route.upstreams
        for index, key in enumerate(upstream.keys)
    ]
    return tuple(
        Attempt(position, route, upstream, key, upstream.position - 1, index)
        for position, (upstream, key, index) in enumerate(candidates, start=1)
    )


def _without_resting(route: Route, resting: Mapping[str, float], now: float, pick: Pick) -> Plan:
    attempts: list[Attempt] = []
    skipped: list[Skipped] = []
    for upstream in _drawn(route, pick):
        at = upstream.position - 1
        for index, key in enumerate(upstream.keys):
            until = resting.get(key.health_id, 0.0)
            if until > now:
                skipped.append(Skipped(upstream, key, at, index, until))
            else:
                attempts.append(Attempt(len(attempts) + 1, route, upstream, key, at, index))
    return Plan(tuple(attempts), tuple(skipped))


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
