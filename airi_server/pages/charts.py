"""Charts for unfold's component: data in attributes, and the same numbers as a table.

Colors are names of the console's own variables, so that light and dark need no twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

AXES: Final = "#9ca3af"
"""What unfold's own charts write on their axes, in light and dark."""
COLORS: Final = ("var(--color-primary-500)", "var(--color-base-400)", "var(--color-primary-300)")


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one bar of each group. `color` is a variable of the style sheet."""

    label: str
    values: Sequence[int | float]
    color: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture and its table. `unit` is written at the values' axis.

    `is_stacked`: the bars of a group stand on each other, because they make up a whole.
    """

    name: str
    kind: Literal["bar", "line"]
    labels: Sequence[str]
    series: Sequence[Series]
    first_column: str
    unit: str = ""
    is_stacked: bool = False

    @property
    def is_empty(self) -> bool:
        return not any(any(series.values) for series in self.series)

    @property
    def data(self) -> str:
        """What Chart.js draws, as JSON."""
        datasets = [
            _dataset(series, COLORS[place % len(COLORS)])
            for place, series in enumerate(self.series)
        ]
        return orjson.dumps({"labels": list(self.labels), "datasets": datasets}).decode()

    @property
    def options(self) -> str:
        """How Chart.js draws it, as JSON."""
        return orjson.dumps(_options(self.unit, is_stacked=self.is_stacked)).decode()

    @property
    def headers(self) -> list[str]:
        return [self.first_column, *(series.label for series in self.series)]

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The same numbers for whoever cannot see the picture, newest or largest as drawn."""
        return list(zip(self.labels, *(series.values for series in self.series), strict=True))


def _dataset(series: Series, color: str) -> dict[str, Any]:
    color = series.color or color
    return {
        "label": series.label,
        "data": list(series.values),
        "borderColor": color,
        "backgroundColor": color,
        "borderWidth": 2,
        "pointRadius": 2,
        "maxBarThickness": 18,
    }


def _options(unit: str, *, is_stacked: bool) -> dict[str, Any]:
    ticks = {"color": AXES, "maxRotation": 0, "autoSkipPadding": 12}
    return {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {
            "legend": {
                "align": "end",
                "labels": {"color": AXES, "boxWidth": 8, "boxHeight": 8, "usePointStyle": True},
            }
        },
        "scales": {
            "x": {"stacked": is_stacked, "grid": {"display": False}, "ticks": ticks},
            "y": {
                "stacked": is_stacked,
                "beginAtZero": True,
                "grid": {"display": True},
                "ticks": {"color": AXES, "precision": 0, "maxTicksLimit": 6},
                "title": {"display": bool(unit), "text": unit, "color": AXES},
            },
        },
    }
