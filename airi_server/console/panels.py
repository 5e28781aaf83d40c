"""What the panels of the start page show, counted one by one, each failing on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from django.core.cache import cache
from django.db import DatabaseError

from airi_server.console import connections
from billing import overview, runs

logger = logging.getLogger(__name__)

T = TypeVar("T")
CACHED_S: Final = 30


@dataclass(frozen=True, slots=True)
class Window:
    """How far back requests are counted, and in what slots their answers are timed."""

    name: str
    title: str
    length: timedelta
    slot: timedelta


DAY: Final = Window("24h", "the last 24 hours", timedelta(days=1), timedelta(hours=1))
WEEK: Final = Window("7d", "the last 7 days", timedelta(days=7), timedelta(days=1))
WINDOWS: Final = {window.name: window for window in (DAY, WEEK)}


@dataclass(frozen=True, slots=True)
class Counted(Generic[T]):
    """A value and when it was counted. `failed`: it could not be, and `value` means nothing."""

    value: T | None
    at: datetime
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Every panel; None is what this operator may not see."""

    flux: Counted[tuple[overview.Day, ...]] | None = None
    traffic: Counted[overview.Traffic] | None = None
    under_way: Counted[overview.UnderWay] | None = None
    orphans: Counted[overview.Orphans] | None = None
    last_check: Counted[runs.ReconciliationRun] | None = None
    connections: Counted[connections.Connections] | None = None

    @property
    def panels(self) -> list[Counted[Any]]:
        every = (
            self.flux,
            self.traffic,
            self.under_way,
            self.orphans,
            self.last_check,
            self.connections,
        )
        return [panel for panel in every if panel is not None]

    @property
    def failed(self) -> bool:
        return any(panel.failed for panel in self.panels)


def look(may: Callable[[str], bool], window: Window, at: datetime) -> Seen:
    """Count whatever `may` allows to see."""
    requests, books = may("billing.view_llmrequestlog"), may("billing.view_fluxaccount")
    ledger = may("billing.view_fluxtransaction")

    def traffic() -> overview.Traffic:
        return overview.traffic(since=at - window.length, slot=window.slot)

    return Seen(
        _cached("flux", at, lambda: overview.flux_by_day(at=at)) if ledger else None,
        _cached(f"traffic:{window.name}", at, traffic) if requests else None,
        _counted(at, overview.under_way) if requests else None,
        _counted(at, overview.orphans) if requests else None,
        _counted(at, runs.newest) if books else None,
        _counted(at, connections.now) if may("chats.view_chat") else None,
    )


def _cached(name: str, at: datetime, count: Callable[[], T]) -> Counted[T]:
    """Return what was counted at most `CACHED_S` ago, or count. Without Redis, always count."""
    key = f"overview:{name}"
    found = cache.get(key)
    if isinstance(found, Counted):
        return found
    counted = _counted(at, count)
    if not counted.failed:
        cache.set(key, counted, CACHED_S)
    return counted


def _counted(at: datetime, count: Callable[[], T | None]) -> Counted[T]:
    try:
        return Counted(count(), at)
    except DatabaseError:
        logger.exception("Unable to count for the start page")
        return Counted(None, at, failed=True)
