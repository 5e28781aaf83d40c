"""What the list of models shows at a glance: who is tried, how often, by which keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from django.db.models import Prefetch, prefetch_related_objects

from airi_server.runtime.options import ConfigNotSet
from llmrouter import model_health
from llmrouter.configuration import routes, tree
from llmrouter.configuration.models import RouterKey, RouterModel, RouterUpstream
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from llmrouter.model_health import HealthIssue, ModelHealth, RouterHealth, Way
from llmrouter.routing import explanation

DISABLED: Final = "disabled"
NOT_WELL: Final = "not well"


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key. `state` is empty if all is well; `is_held`: something is held against it."""

    id: str
    fingerprint: str
    state: str
    is_held: bool


@dataclass(frozen=True, slots=True)
class UpstreamLine:
    """One upstream. `share` is in percent, among equals; None without any.

    `state` is what is held against it together with its model; empty if all is well.
    """

    pk: int
    name: str
    host: str
    sent_as: str
    priority: int
    share: float | None
    is_used: bool
    state: str
    keys: tuple[KeyLine, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What all models have in common: the routes in force, how they are, what `auto` means."""

    router: RouterHealth
    auto: str

    @property
    def table(self) -> routes.Table | None:
        return self.router.table

    @property
    def auto_is_missing(self) -> bool:
        """Whether `auto` names a model that there is not."""
        return bool(self.auto) and self.auto not in self.router.models

    def upstreams_of(self, model: RouterModel) -> list[UpstreamLine]:
        """Return the upstreams in the order they are tried; rows and keys have to be prefetched."""
        route = None
        if model.surface == tree.LLM and self.table is not None:
            route = self.table.llm.get(model.name)
        compiled = {each.position: each for each in route.upstreams} if route else {}
        share_of = explanation.shares(list(compiled.values()))
        health = self.health_of(model)
        lines = [
            _line(row, compiled.get(row.position), share_of.get(row.position), health)
            for row in model.upstreams.all()
        ]
        return sorted(lines, key=lambda line: line.priority)

    def health_of(self, model: RouterModel) -> ModelHealth | None:
        """Return how a chat model is; None of what is not in force, or no chat model."""
        return self.router.models.get(model.name) if model.surface == tree.LLM else None


def _line(
    row: RouterUpstream,
    compiled: routes.Upstream | None,
    share: float | None,
    health: ModelHealth | None,
) -> UpstreamLine:
    ways = [way for way in health.ways if way.position == row.position] if health else []
    way_of = {way.key: way for way in ways} if compiled else {}
    host = urlsplit(row.base_url).hostname or "unknown"
    keys = tuple(_key(key, way_of.get(key.key_id)) for key in row.keys.all())
    return UpstreamLine(
        pk=row.pk,
        name=compiled.id if compiled else row.slug or host,
        host=host,
        sent_as=row.override_model,
        priority=row.position if row.priority is None else row.priority,
        share=share,
        is_used=any(key.state != DISABLED for key in keys),
        state=next((_said(way.of_target) for way in way_of.values() if way.of_target), ""),
        keys=keys,
    )


def _key(key: RouterKey, way: Way | None) -> KeyLine:
    if key.disabled:
        return KeyLine(key.key_id, key.fingerprint, DISABLED, is_held=False)
    state = _said(way.of_key) if way else ""
    return KeyLine(key.key_id, key.fingerprint, state, is_held=bool(state))


def _said(held: Iterable[HealthIssue]) -> str:
    """Say what is held; what keeps everybody away is spelled out where the model's health is."""
    said = (NOT_WELL if each.bars else each.sentence for each in held)
    return "; ".join(dict.fromkeys(said))


def current(*, at: datetime) -> Overview:
    """Read everything that does not depend on the model, in two statements and one command."""
    try:
        auto = DEFAULT_CHAT_MODEL.read()
    except ConfigNotSet:
        auto = ""
    return Overview(model_health.current(at=at), auto)


def annotate(models: Iterable[RouterModel], overview: Overview) -> list[RouterModel]:
    """Return the models, each with its `lines`, its `health` and whether it `is_auto`."""
    found: list[Any] = list(models)
    keys = Prefetch("keys", RouterKey.objects.order_by("position"))
    upstreams = RouterUpstream.objects.order_by("position").prefetch_related(keys)
    prefetch_related_objects(found, Prefetch("upstreams", upstreams))
    for model in found:
        model.lines = overview.upstreams_of(model)
        model.health = overview.health_of(model)
        model.is_whole = overview.router.is_whole
        model.is_auto = model.surface == tree.LLM and model.name == overview.auto
    return found
