"""Every address of the console, read from the URLconf, with its parameters filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, reverse

UNNAMED = {"(?P<url>.*)$": "nothing"}


@dataclass(frozen=True)
class Place:
    """One pattern: its name in the namespace `admin`, and what it captures."""

    name: str
    route: str
    captures: tuple[str, ...]

    def url(self, keys: Mapping[str, str]) -> str:
        """Fill in the parameters; `keys` has the key of a row for each model, and other words."""
        if self.name.endswith("_row"):  # Django's own short cut to a row has no name
            return f"{reverse(f'admin:{self._model}_changelist')}{keys[self._model]}/"
        if self.name == "nothing":
            return f"{reverse('admin:index')}nothing/here/"
        filled = {capture: keys.get(capture) or keys[self._model] for capture in self.captures}
        return reverse(f"admin:{self.name}", kwargs=filled)

    @property
    def _model(self) -> str:
        return "_".join(self.name.split("_")[:2])


def places() -> dict[str, Place]:
    found = [_place(route, pattern) for route, pattern in _patterns(admin.site.urls[0], "")]
    named = {place.name: place for place in found}
    assert len(named) == len(found), "two patterns have one name"
    return named


def _patterns(patterns: list[Any], prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, pattern
        else:
            yield from _patterns(pattern.url_patterns, route)


def _place(route: str, pattern: URLPattern) -> Place:
    name = pattern.name or UNNAMED.get(route)
    if name is None and route.endswith("/<path:object_id>/"):
        app, model, _ = route.split("/", 2)
        name = f"{app}_{model}_row"
    assert name, f"{route} has no name"
    return Place(name, route, tuple(pattern.pattern.converters) or _groups(pattern))


def _groups(pattern: URLPattern) -> tuple[str, ...]:
    regex = getattr(pattern.pattern, "regex", None)
    return tuple(regex.groupindex) if regex else ()
