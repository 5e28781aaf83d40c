"""The start page: the health summary, and traffic and Flux over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.admin import dashboard, health_summary, onboarding
from airi_server.admin.dashboard import Seen, Window
from airi_server.pages.charts import Chart, Series
from billing.admin.dashboard import Day, FirstToken, ModelTraffic, Traffic
from billing.usage.refusals import ModelRefusals

OK: Final = "var(--color-primary-500)"
RED: Final = "var(--color-red-500)"
AMBER: Final = "var(--color-orange-400)"
NO_MODEL: Final = "no such model"
_SORTS: Final = ("ok", "failed", "refused")
TOP: Final = 12
"""Models that have a bar of their own."""


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Show the state of the server, as far as this operator may see it."""
    window = dashboard.WINDOWS.get(request.GET.get("window", ""), dashboard.DAY)
    at = timezone.now()
    may = request.user.has_perm
    seen = dashboard.look(may, window, at)
    shown = {
        **context,
        "title": "Start",
        "seen": seen,
        "troubles": health_summary.of(seen, at=at, window=window, may=may),
        "is_whole": _is_whole(seen),
        "steps": [] if _has_traffic(seen) else onboarding.of(may),
        "window": window,
        "windows": dashboard.WINDOWS.values(),
        "charts": _charts(seen, window),
        "sees_books": may("billing.view_fluxaccount"),
    }
    return TemplateResponse(request, "console/start.html", shown)


def _is_whole(seen: Seen) -> bool:
    """Return whether what is said of models is what all instances know."""
    found = seen.router.value if seen.router else None
    return found is None or found.router.is_whole


def _has_traffic(seen: Seen) -> bool:
    """Return whether the server is in use: then its first steps need not be shown."""
    if seen.refused and seen.refused.value:
        return True
    return bool(
        seen.traffic and (seen.traffic.failed or ((found := seen.traffic.value) and found.requests))
    )


def _charts(seen: Seen, window: Window) -> dict[str, Chart]:
    found = {}
    if seen.flux and seen.flux.value:
        found["flux"] = _flux_chart(seen.flux.value)
    if seen.traffic and seen.traffic.value:
        refused = seen.refused.value if seen.refused else None
        found["models"] = _models_chart(seen.traffic.value, refused or ())
        found["first_token"] = _first_token_chart(seen.traffic.value.first_token, window)
    return found


def _flux_chart(days: tuple[Day, ...]) -> Chart:
    series = [
        Series("Used", [day.used for day in days]),
        Series("Credited", [day.credited for day in days]),
    ]
    if any(day.withdrawn for day in days):
        series.append(Series("Withdrawn", [day.withdrawn for day in days]))
    labels = [f"{day.day:%b} {day.day.day}" for day in days]
    return Chart("Flux a day", "bar", labels, series, first_column="Day (UTC)", unit="Flux")


@dataclass(frozen=True, slots=True)
class _Bar:
    """What came of the calls for one model."""

    model: str
    ok: int
    failed: int
    refused: int

    @property
    def calls(self) -> int:
        return self.ok + self.failed + self.refused


def _models_chart(traffic: Traffic, refused: Iterable[ModelRefusals]) -> Chart:
    """Draw the busiest models, and all others as one."""
    bars = _bars(traffic, refused)
    shown, rest = bars[:TOP], bars[TOP:]
    if rest:
        ok, failed, lost = (sum(getattr(bar, name) for bar in rest) for name in _SORTS)
        shown.append(_Bar(f"{len(rest)} others", ok, failed, lost))
    series = [
        Series("OK", [bar.ok for bar in shown], color=OK),
        Series("Failed", [bar.failed for bar in shown], color=RED),
        Series("Refused", [bar.refused for bar in shown], color=AMBER),
    ]
    labels = [bar.model for bar in shown]
    name = "Requests by model"
    return Chart(name, "bar", labels, series, first_column="Model", is_stacked=True)


def _bars(traffic: Traffic, refused: Iterable[ModelRefusals]) -> list[_Bar]:
    """Return what came of every model's calls, the busiest first."""
    counted = {model.model: model for model in traffic.models}
    lost: Counter[str] = Counter()
    for each in refused:
        lost[each.model] += each.count
    bars = []
    for model in {**counted, **lost}:
        requests, failures = _counts(counted.get(model))
        bars.append(_Bar(model or NO_MODEL, requests - failures, failures, lost[model]))
    return sorted(bars, key=lambda bar: (-bar.calls, bar.model))


def _counts(model: ModelTraffic | None) -> tuple[int, int]:
    return (model.requests, model.failures) if model else (0, 0)


def _first_token_chart(slots: tuple[FirstToken, ...], window: Window) -> Chart:
    is_day = window.slot < dashboard.WEEK.slot
    form = "%H:%M" if is_day else "%b %d"
    series = [
        Series("Half of the answers within", [slot.p50_ms for slot in slots]),
        Series("95 % within", [slot.p95_ms for slot in slots]),
    ]
    labels = [slot.at.strftime(form) for slot in slots]
    first_column = "From (UTC)" if is_day else "Day (UTC)"
    return Chart("Time to first token", "line", labels, series, first_column, unit="ms")
