"""Panels of the start page: each is counted by itself, and fails by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import DatabaseError

from airi_server.admin import connections
from billing import reconciliation_runs
from billing.admin import dashboard
from billing.usage import refusals
from billing.usage.refusals import ModelRefusals
from llmrouter.admin import overview as router
from llmrouter.admin.overview import Overview
from llmrouter.configuration.tree import InvalidTree

logger = logging.getLogger(__name__)

T = TypeVar("T")
CACHED_S: Final = 30
CLEARED_WITHIN: Final = timedelta(days=2)
SEE_REQUESTS: Final = "billing.view_llmrequestlog"
SEE_ROUTES: Final = "llmrouter.view_routermodel"


@dataclass(frozen=True, slots=True)
class Window:
    """How far back requests are counted, and in what slots their answers are timed."""

    name: str
    title: str
    length: timedelta
    slot: timedelta


HOUR: Final = Window("1h", "the last hour", timedelta(hours=1), timedelta(minutes=5))
DAY: Final = Window("24h", "the last 24 hours", timedelta(days=1), timedelta(hours=1))
WEEK: Final = Window("7d", "the last 7 days", timedelta(days=7), timedelta(days=1))
WINDOWS: Final = {window.name: window for window in (HOUR, DAY, WEEK)}
"""By the names that the lists have for them too: a number leads to its rows.

Every row of a window is read, so that there is none of a month: of a million it takes seconds.
"""


@dataclass(frozen=True, slots=True)
class Counted(Generic[T]):
    """A value and when it was counted. `failed`: it could not be, and `value` means nothing."""

    value: T | None
    at: datetime
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """Every panel; None is what this operator may not see."""

    router: Counted[Overview] | None = None
    flux: Counted[tuple[dashboard.Day, ...]] | None = None
    traffic: Counted[dashboard.Traffic] | None = None
    refused: Counted[tuple[ModelRefusals, ...]] | None = None
    under_way: Counted[dashboard.UnderWay] | None = None
    orphans: Counted[dashboard.Orphans] | None = None
    last_check: Counted[reconciliation_runs.ReconciliationRun] | None = None
    connections: Counted[connections.Connections] | None = None
    has_expired_rows: Counted[bool] | None = None

    @property
    def panels(self) -> list[Counted[Any]]:
        every = (
            self.router,
            self.flux,
            self.traffic,
            self.refused,
            self.under_way,
            self.orphans,
            self.last_check,
            self.connections,
            self.has_expired_rows,
        )
        return [panel for panel in every if panel is not None]

    @property
    def failed(self) -> bool:
        return any(panel.failed for panel in self.panels)


def look(may: Callable[[str], bool], window: Window, at: datetime) -> Seen:
    """Count whatever `may` allows to see."""
    requests, books = may(SEE_REQUESTS), may("billing.view_fluxaccount")
    ledger = may("billing.view_fluxtransaction")

    def traffic() -> dashboard.Traffic:
        return dashboard.traffic(since=at - window.length, slot=window.slot)

    def refused() -> tuple[ModelRefusals, ...]:
        return tuple(refusals.by_model(since=at - window.length))

    return Seen(
        _counted(at, lambda: router.current(at=at)) if requests or may(SEE_ROUTES) else None,
        _cached("flux", at, lambda: dashboard.flux_by_day(at=at)) if ledger else None,
        _cached(f"traffic:{window.name}", at, traffic) if requests else None,
        _cached(f"refused:{window.name}", at, refused) if requests else None,
        _counted(at, dashboard.under_way) if requests else None,
        _counted(at, dashboard.orphans) if requests else None,
        _counted(at, reconciliation_runs.newest) if books else None,
        _counted(at, connections.now) if may("chats.view_chat") else None,
        _counted(at, lambda: has_expired_rows(at)) if books else None,
    )


def has_expired_rows(at: datetime) -> bool:
    """Return whether `clear-expired` has not run: only it deletes sessions."""
    return Session.objects.filter(expire_date__lt=at - CLEARED_WITHIN).exists()


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
    except (DatabaseError, InvalidTree):
        logger.exception("Unable to count for the start page")
        return Counted(None, at, failed=True)
