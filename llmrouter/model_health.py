"""Model health: whether each chat model is served, since when and why not.

`of` is pure. A page calls `current` and shows what it returns through `console/model_health.html`,
so that no two pages say different things.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from airi_server.kernel import sealing
from llmrouter.configuration import provider_keys, publishing, routes, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.routes import Key, Upstream
from llmrouter.routing import explanation, health
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from llmrouter.routing.health import Standings

MAX_REVISIONS: Final = 50
"""How far back it is looked since when every key is disabled."""
_OF_KEY: Final = frozenset({Blame.DEAD, Blame.DOUBT})


class HealthState(StrEnum):
    SERVED = "served"
    PARTLY = "partly"
    """By some of its upstreams and keys, and not by others."""
    UNSERVED = "unserved"


@dataclass(frozen=True, slots=True)
class HealthIssue:
    """One thing that is held against a key or a target.

    `bars`: nobody is served because of it, and not only one caller. `is_refusal`: the provider
    refuses the key, which no waiting mends. `since` None: it is not known.
    """

    sentence: str
    words: str = ""
    since: datetime | None = None
    bars: bool = True
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """One upstream with one of its keys: one way in which a model can be served."""

    upstream: str
    key: str
    position: int
    is_disabled: bool
    of_key: tuple[HealthIssue, ...] = ()
    of_target: tuple[HealthIssue, ...] = ()

    @property
    def held(self) -> tuple[HealthIssue, ...]:
        return (*self.of_key, *self.of_target)

    @property
    def is_well(self) -> bool:
        return not self.is_disabled and not any(held.bars for held in self.held)

    @property
    def since(self) -> datetime | None:
        """Return since when it does not serve, as far as that is known."""
        return min((held.since for held in self.held if held.bars and held.since), default=None)


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """One chat model: the ways in which it can be served, and how each is.

    `disabled_since` is when the last of its keys was disabled.
    """

    model: str
    ways: tuple[Way, ...]
    disabled_since: datetime | None = None

    @property
    def enabled(self) -> tuple[Way, ...]:
        return tuple(way for way in self.ways if not way.is_disabled)

    @property
    def unwell(self) -> tuple[Way, ...]:
        """Return the enabled ways that do not serve anybody, in the order they are configured."""
        return tuple(way for way in self.enabled if not way.is_well)

    @property
    def state(self) -> HealthState:
        if not self.unwell:
            return HealthState.SERVED if self.enabled else HealthState.UNSERVED
        return HealthState.PARTLY if len(self.unwell) < len(self.enabled) else HealthState.UNSERVED

    @property
    def is_unserved(self) -> bool:
        return self.state is HealthState.UNSERVED

    @property
    def has_refused_key(self) -> bool:
        """Whether a provider refuses one of its keys: somebody has to look, served or not."""
        return any(held.is_refusal for way in self.unwell for held in way.held)

    @property
    def since(self) -> datetime | None:
        """Return since when it is not served: since the last way was lost. None: not known."""
        if not self.is_unserved:
            return None
        if not self.enabled:
            return self.disabled_since
        lost = [way.since for way in self.unwell]
        known = [at for at in lost if at is not None]
        return max(known) if len(known) == len(lost) else None

    @property
    def headline(self) -> str:
        """Say in words whether it is served."""
        if self.state is HealthState.SERVED:
            return "is served"
        if self.state is HealthState.PARTLY:
            count = f"{len(self.unwell)} of its {len(self.enabled)} upstreams and keys"
            return f"is served, but not by {count}"
        return "cannot be served" if self.enabled else "cannot be served: every key is disabled"

    def way(self, position: int, key: str) -> Way | None:
        """Return the way by the key of the upstream at a position, from 1."""
        found = (way for way in self.ways if (way.position, way.key) == (position, key))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class RouterHealth:
    """Every chat model in force. `is_whole`: what all instances know, and not only this one."""

    revision: RouterRevision | None
    table: routes.Table | None
    models: Mapping[str, ModelHealth]
    is_whole: bool = True

    @property
    def unserved(self) -> list[ModelHealth]:
        return [model for model in self.models.values() if model.is_unserved]

    @property
    def refused(self) -> list[ModelHealth]:
        """Return the models that are served although a provider refuses one of their keys."""
        served = (model for model in self.models.values() if not model.is_unserved)
        return [model for model in served if model.has_refused_key]


def current(*, at: datetime) -> RouterHealth:
    """Return how the models in force are: one statement, and one command to Redis.

    Raises:
        InvalidTree: The newest revision cannot be read.
    """
    revision = publishing.newest()
    if revision is None:
        return RouterHealth(None, None, {})
    config = tree.parse(revision.tree)
    table = routes.compile(config, revision.number)
    told = health.read_standings(revision.number)
    standings = health.own_standings() if told is None else told
    models = {name: of(config, table, name, standings, at=at) for name in table.available}
    for name, found in models.items():
        if not found.enabled:
            models[name] = ModelHealth(name, found.ways, _disabled_since(name, revision))
    return RouterHealth(revision, table, models, is_whole=told is not None)


def of(
    config: tree.Tree, table: routes.Table, model: str, standings: Standings, *, at: datetime
) -> ModelHealth:
    """Return how one chat model of a configuration is, by what is held against whom."""
    compiled = {upstream.position: upstream for upstream in table.llm[model].upstreams}
    ways: list[Way] = []
    for position, upstream in enumerate(config.llm.models[model].upstreams, start=1):
        found = compiled.get(position)
        ways += _ways(position, upstream, found, standings, at)
    return ModelHealth(model, tuple(ways))


def _ways(
    position: int,
    upstream: tree.LLMUpstream,
    compiled: Upstream | None,
    standings: Standings,
    at: datetime,
) -> Iterator[Way]:
    name = compiled.id if compiled else upstream.id or urlsplit(upstream.base_url).hostname or ""
    keys = {key.id: key for key in compiled.keys} if compiled else {}
    for each in upstream.keys:
        key = keys.get(each.id)
        if compiled is None or key is None:
            yield Way(name, each.id, position, is_disabled=True)
            continue
        yield Way(
            name,
            each.id,
            position,
            is_disabled=False,
            of_key=(*_closed(compiled, key), *_held(standings.get(key.health_id, ()), at)),
            of_target=tuple(_held(standings.get(compiled.target_id, ()), at)),
        )


def _closed(upstream: Upstream, key: Key) -> Iterator[HealthIssue]:
    """Yield what keeps a key from being sent at all: it is skipped by every request."""
    try:
        provider_keys.fingerprint(
            key.sealed, model=key.context_model, key_id=key.id, origin=upstream.origin
        )
    except sealing.WrongOrigin:
        yield HealthIssue("the key was entered for another host and is not sent", is_refusal=True)
    except sealing.CannotOpen:
        yield HealthIssue("the key does not open with this server's master key", is_refusal=True)
    except provider_keys.UnusableKey as unusable:
        yield HealthIssue(f"the key cannot be sent: {unusable.message}", is_refusal=True)


def _held(standings: Iterable[BreakerState], at: datetime) -> Iterator[HealthIssue]:
    for standing in standings:
        yield HealthIssue(
            explanation.sentence(standing),
            standing.words,
            at - timedelta(seconds=standing.since_s),
            explanation.bars(standing),
            standing.blame in _OF_KEY,
        )


def _disabled_since(model: str, newest: RouterRevision) -> datetime:
    """Return when the revisions began in which every key of a model is disabled."""
    since = newest.published_at
    for revision in RouterRevision.objects.order_by("-number")[:MAX_REVISIONS]:
        try:
            config = tree.parse(revision.tree)
        except tree.InvalidTree:
            break
        found = config.llm.models.get(model)
        if found is None or any(not key.disabled for each in found.upstreams for key in each.keys):
            break
        since = revision.published_at
    return since
