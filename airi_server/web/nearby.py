"""Suggestions for a wrong address: only what the API's public document has too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.urls import URLPattern, get_resolver

PUBLIC: Final = ("/v1/", "/api/v1/")
ROOTLESS: Final = frozenset(
    {
        "audio", "batches", "chat", "completions", "embeddings", "files", "images", "messages",
        "models", "moderations", "responses",
    }
)  # fmt: skip
"""First segments of the paths that an OpenAI SDK adds to its base URL."""
MAX_LENGTH: Final = 80
"""A longer path is compared by its beginning: comparing costs its square."""
MAX_NAMED: Final = 3
CUTOFF: Final = 0.8


def hint(path: str) -> str:
    """Return a sentence about what exists near a path that is not routed; "" if nothing does."""
    if is_rootless(path):
        return f"The API is under /v1: set your client's base URL to {settings.API_SERVER_URL}/v1."
    if path.startswith("/v1/v1/"):
        return f"/v1 is there twice: your client's base URL is {settings.API_SERVER_URL}/v1."
    near = _near(path[:MAX_LENGTH])
    return f"There is {', '.join(near)}." if near else ""


def is_rootless(path: str) -> bool:
    """Whether an OpenAI SDK calls here because its base URL lacks `/v1`."""
    return path.split("/", 2)[1] in ROOTLESS


@lru_cache(maxsize=512)
def _near(path: str) -> tuple[str, ...]:
    asked = path.lower().rstrip("/")
    # The beginning is what is mostly wrong: /openai/v1/chat/completions.
    if found := [route for route in public_routes() if asked.endswith(_tail(route))]:
        return tuple(found[:MAX_NAMED])
    there = {_filled(route, asked).lower(): route for route in public_routes()}
    if close := get_close_matches(asked, there, n=MAX_NAMED, cutoff=CUTOFF):
        return tuple(there[each] for each in close)
    if asked.startswith("/v1"):  # something of OpenAI's that this server does not have
        ours = [route for route in public_routes() if route.startswith("/v1/")]
        return tuple(route for route in ours if "{" not in route)
    return ()


def _tail(route: str) -> str:
    return route.partition("/v1")[2]


def _filled(route: str, path: str) -> str:
    """Return a route with its parameters as the path has them, so that only words differ."""
    given = path.split("/")
    steps = route.split("/")
    return "/".join(
        given[at] if step.startswith("{") and at < len(given) else step
        for at, step in enumerate(steps)
    )


@lru_cache(maxsize=1)
def public_routes() -> tuple[str, ...]:
    """Return what is routed for programs, as the API's document spells it."""
    routed = {each for each in _routes(get_resolver().url_patterns, "/") if each.startswith(PUBLIC)}
    # The older clients' singular is no second address to be told of.
    return tuple(sorted(each for each in routed if f"{each}s" not in routed))


def _routes(patterns: Iterable[Any], prefix: str) -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if not isinstance(pattern, URLPattern):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
