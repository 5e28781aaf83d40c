"""What the list of models shows at a glance: who is tried, how often, by which keys, who rests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.db.models import Prefetch, prefetch_related_objects

from airi_server.runtime.options import ConfigNotSet
from llmrouter.configuration import publishing, routes, tree
from llmrouter.models import RouterKey, RouterModel, RouterUpstream
from llmrouter.options import DEFAULT_CHAT_MODEL
from llmrouter.routing import explanation, health, planning
from llmrouter.routing.explanation import Resting


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key. `state` is empty if it is in use; `rests` says that it is not for now."""

    id: str
    fingerprint: str
    state: str
    rests: bool


@dataclass(frozen=True, slots=True)
class UpstreamLine:
    """One upstream. `share` is in percent, among equals; None without any."""

    pk: int
    name: str
    host: str
    sent_as: str
    priority: int
    share: float | None
    is_used: bool
    keys: tuple[KeyLine, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What all models have in common: the routes in force, who rests, what `auto` means."""

    table: routes.Table | None
    resting: Resting
    auto: str
    now: float

    @property
    def auto_is_missing(self) -> bool:
        """Whether `auto` names a model that there is not."""
        return bool(self.auto) and (self.table is None or self.auto not in self.table.llm)

    def upstreams_of(self, model: RouterModel) -> list[UpstreamLine]:
        """Return the upstreams in the order they are tried; rows and keys have to be prefetched."""
        route = None
        if model.surface == tree.LLM and self.table is not None:
            route = self.table.llm.get(model.name)
        compiled = {each.position: each for each in route.upstreams} if route else {}
        share_of = explanation.shares(list(compiled.values()))
        lines = [
            self._line(row, compiled.get(row.position), share_of.get(row.position))
            for row in model.upstreams.all()
        ]
        return sorted(lines, key=lambda line: line.priority)

    def _line(
        self, row: RouterUpstream, compiled: routes.Upstream | None, share: float | None
    ) -> UpstreamLine:
        health_ids = {key.id: key.health_id for key in compiled.keys} if compiled else {}
        keys = tuple(self._key(key, health_ids.get(key.key_id, "")) for key in row.keys.all())
        host = urlsplit(row.base_url).hostname or "unknown"
        return UpstreamLine(
            pk=row.pk,
            name=compiled.id if compiled else row.slug or host,
            host=host,
            sent_as=row.override_model,
            priority=row.position if row.priority is None else row.priority,
            share=share,
            is_used=any(not key.state for key in keys),
            keys=keys,
        )

    def _key(self, key: RouterKey, health_id: str) -> KeyLine:
        if key.disabled:
            return KeyLine(key.key_id, key.fingerprint, "disabled", rests=False)
        until, reason = self.resting.get(health_id, (0.0, ""))
        if until <= self.now:
            return KeyLine(key.key_id, key.fingerprint, "", rests=False)
        state = f"{reason}: {planning.rest(until, self.now)}"
        return KeyLine(key.key_id, key.fingerprint, state, rests=True)


def current(now: float) -> Overview:
    """Read everything that does not depend on the model, in two statements and one command."""
    try:
        auto = DEFAULT_CHAT_MODEL.read()
    except ConfigNotSet:
        auto = ""
    try:
        table = publishing.current_table()
    except publishing.NotConfigured:
        table = None
    return Overview(table, health.resting_from_redis(), auto, now)


def annotate(models: Iterable[RouterModel], overview: Overview) -> list[RouterModel]:
    """Return the models, each with its `lines` and whether it `is_auto`, for the list's cells."""
    found = list(models)
    keys = Prefetch("keys", RouterKey.objects.order_by("position"))
    upstreams = RouterUpstream.objects.order_by("position").prefetch_related(keys)
    prefetch_related_objects(found, Prefetch("upstreams", upstreams))
    for model in found:
        model.lines = overview.upstreams_of(model)  # type: ignore[attr-defined]
        model.is_auto = model.surface == tree.LLM and model.name == overview.auto  # type: ignore[attr-defined]
    return found
