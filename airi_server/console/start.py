"""The start page: is all well, and where does the Flux go?"""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.console import first_steps, panels, verdict
from airi_server.console.panels import Seen, Window
from airi_server.pages.charts import Chart, Series
from billing.overview import Day, FirstToken, ModelTraffic, Traffic

RED: Final = "var(--color-red-500)"
TOP: Final = 12
"""Models that have a bar of their own."""


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Show the state of the server, as far as this operator may see it."""
    window = panels.WINDOWS.get(request.GET.get("window", ""), panels.DAY)
    at = timezone.now()
    may = request.user.has_perm
    seen = panels.look(may, window, at)
    shown = {
        **context,
        "title": "Start",
        "seen": seen,
        "troubles": verdict.of(seen, at=at),
        "steps": [] if _has_traffic(seen) else first_steps.of(may),
        "window": window,
        "windows": panels.WINDOWS.values(),
        "charts": _charts(seen, window),
        "sees_books": may("billing.view_fluxaccount"),
    }
    return TemplateResponse(request, "console/start.html", shown)


def _has_traffic(seen: Seen) -> bool:
    """Return whether anybody uses the server: then nobody needs to be told how to begin."""
    return bool(
        seen.traffic and (seen.traffic.failed or ((found := seen.traffic.value) and found.requests))
    )


def _charts(seen: Seen, window: Window) -> dict[str, Chart]:
    found = {}
    if seen.flux and seen.flux.value:
        found["flux"] = _flux_chart(seen.flux.value)
    if seen.traffic and seen.traffic.value:
        found["models"] = _models_chart(seen.traffic.value)
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


def _models_chart(traffic: Traffic) -> Chart:
    """Draw the busiest models, and all others as one."""
    shown, rest = list(traffic.models[:TOP]), traffic.models[TOP:]
    if rest:
        requests, failures = (sum(column) for column in zip(*map(_counts, rest), strict=True))
        shown.append(ModelTraffic(f"{len(rest)} others", requests, failures))
    series = [
        Series("Requests", [model.requests for model in shown]),
        Series("Failed", [model.failures for model in shown], color=RED),
    ]
    labels = [model.model for model in shown]
    return Chart("Requests by model", "bar", labels, series, first_column="Model")


def _counts(model: ModelTraffic) -> tuple[int, int]:
    return model.requests, model.failures


def _first_token_chart(slots: tuple[FirstToken, ...], window: Window) -> Chart:
    form = "%H:%M" if window is panels.DAY else "%b %d"
    series = [
        Series("Half of the answers within", [slot.p50_ms for slot in slots]),
        Series("95 % within", [slot.p95_ms for slot in slots]),
    ]
    labels = [slot.at.strftime(form) for slot in slots]
    first_column = "Hour (UTC)" if window is panels.DAY else "Day (UTC)"
    return Chart("Time to first token", "line", labels, series, first_column, unit="ms")
