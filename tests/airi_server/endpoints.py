"""Every endpoint there is, read from the URLconf, with an ordinary request for each.

A new endpoint has no example here, and `test_input.py` says so: add one line to `EXAMPLES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.urls import URLPattern, get_resolver
from ninja.operation import Operation, PathView

PAGES = ("/admin/", "/static/", "/app/")


@dataclass(frozen=True)
class Example:
    """`path` fills in the parameters; `body` is JSON for methods that take one."""

    path: str
    body: dict[str, Any] | None = None
    query: tuple[str, ...] = field(default=())


CHAT = {
    "model": "auto",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 10,
    "max_completion_tokens": 10,
    "n": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
}
KEY = {
    "name": "laptop",
    "expiresAt": "2099-01-31T12:00:00.000Z",
    "allowedModels": [],
    "allowedAddresses": [],
    "limits": {"day": 1},
}
GRANT = {
    "description": "welcome",
    "amount": 100,
    "emails": ["nobody@example.com"],
    "idempotencyKey": "k",
}
ROUTER_CONFIG = {"mode": "merge", "dryRun": True, "slices": [], "defaults": {}}
ROOM = {
    "id": "c1",
    "type": "bot",
    "title": "Talk",
    "members": [{"type": "character", "characterId": "airi"}],
}
MEMBER = {"type": "user", "userId": "u2", "characterId": None}
CHARACTER = {"version": "1", "coverUrl": "https://x/c.png", "characterId": "airi"}
PARTS = {
    "cover": {"foregroundUrl": "https://x/f.png", "backgroundUrl": "https://x/b.png"},
    "capabilities": [{"type": "llm", "config": {"apiKey": "k", "apiBaseUrl": "https://x"}}],
    "avatarModels": [
        {"name": "n", "type": "spine", "description": "", "config": {"spine": {"urls": []}}}
    ],
    "i18n": [{"language": "en", "name": "Airi", "description": "", "tags": ["a"]}],
    "prompts": [{"language": "en", "type": "system", "content": "Be kind."}],
}
ALWAYS = {
    "cache-control": "no-store, no-cache, private, max-age=0",
    "pragma": "no-cache",
    "expires": "0",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""The headers of every answer that is no page, written down a second time."""
NOBODY = "00000000-0000-7000-8000-000000000000"
EXAMPLES = {
    "GET /": Example("/"),
    "GET /docs": Example("/docs"),
    "GET /docs/": Example("/docs/"),
    "GET /docs/<str:name>": Example("/docs/{x}"),
    "GET /favicon.ico": Example("/favicon.ico"),
    "GET /livez": Example("/livez"),
    "GET /readyz": Example("/readyz"),
    "GET /api/openapi.json": Example("/api/openapi.json"),
    "POST /v1/chat/completions": Example("/v1/chat/completions", CHAT),
    "GET /v1/models": Example("/v1/models"),
    "GET /v1/models/<path:model_id>": Example("/v1/models/{x}"),
    "POST /api/v1/openai/chat/completions": Example("/api/v1/openai/chat/completions", CHAT),
    "POST /api/v1/openai/chat/completion": Example("/api/v1/openai/chat/completion", CHAT),
    "GET /api/v1/openai/models": Example("/api/v1/openai/models"),
    "GET /api/v1/openai/models/<path:model_id>": Example("/api/v1/openai/models/{x}"),
    "GET /api/v1/flux": Example("/api/v1/flux"),
    "GET /api/v1/flux/stats": Example("/api/v1/flux/stats"),
    "GET /api/v1/flux/history": Example("/api/v1/flux/history", query=("limit", "offset")),
    "GET /api/v1/flux/requests": Example(
        "/api/v1/flux/requests", query=("limit", "cursor", "refused")
    ),
    "GET /api/v1/flux/requests/<request_id>": Example("/api/v1/flux/requests/{x}"),
    "GET /api/v1/keys": Example("/api/v1/keys"),
    "POST /api/v1/keys": Example("/api/v1/keys", KEY),
    "PATCH /api/v1/keys/<id>": Example("/api/v1/keys/{x}", KEY),
    "DELETE /api/v1/keys/<id>": Example("/api/v1/keys/{x}"),
    "GET /api/admin/config/router": Example("/api/admin/config/router"),
    "POST /api/admin/config/router": Example("/api/admin/config/router", ROUTER_CONFIG),
    "POST /api/admin/flux-grants": Example("/api/admin/flux-grants", GRANT, query=("dryRun",)),
    "POST /api/v1/ws-tickets": Example("/api/v1/ws-tickets"),
    "GET /api/v1/chats": Example("/api/v1/chats", query=("limit", "cursor")),
    "POST /api/v1/chats": Example("/api/v1/chats", ROOM),
    "GET /api/v1/chats/<id>": Example("/api/v1/chats/{x}"),
    "PATCH /api/v1/chats/<id>": Example("/api/v1/chats/{x}", {"title": "Talk"}),
    "DELETE /api/v1/chats/<id>": Example("/api/v1/chats/{x}"),
    "POST /api/v1/chats/<id>/members": Example("/api/v1/chats/{x}/members", MEMBER),
    "PATCH /api/v1/chats/<id>/members/<member_id>": Example(
        "/api/v1/chats/c1/members/{x}", {"role": "admin"}
    ),
    "DELETE /api/v1/chats/<id>/members/<member_id>": Example("/api/v1/chats/c1/members/{x}"),
    "GET /api/v1/characters": Example("/api/v1/characters", query=("all", "limit", "cursor")),
    "POST /api/v1/characters": Example("/api/v1/characters", {"character": CHARACTER, **PARTS}),
    "GET /api/v1/characters/<id>": Example("/api/v1/characters/{x}"),
    "PATCH /api/v1/characters/<id>": Example("/api/v1/characters/{x}", {**CHARACTER, **PARTS}),
    "DELETE /api/v1/characters/<id>": Example("/api/v1/characters/{x}"),
    "POST /api/v1/characters/<id>/like": Example("/api/v1/characters/{x}/like"),
    "POST /api/v1/characters/<id>/bookmark": Example("/api/v1/characters/{x}/bookmark"),
}


def endpoints() -> list[str]:
    """Return "METHOD /route" for everything that is mounted and no page."""
    found = []
    for route, pattern in routes(get_resolver().url_patterns, "/"):
        if not f"{route}/".startswith(PAGES):
            found += [f"{method} {route}" for method in _methods(pattern)]
    return sorted(set(found))


def routes(patterns: list[Any], prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, pattern
        else:
            yield from routes(pattern.url_patterns, route)


def operations(pattern: URLPattern) -> list[Operation]:
    """Return a ninja view's operations, found in the closure ninja wraps it in."""
    cells = getattr(pattern.callback, "__closure__", None) or ()
    views = [c.cell_contents for c in cells if isinstance(c.cell_contents, PathView)]
    return [operation for view in views for operation in view.operations]


def _methods(pattern: URLPattern) -> list[str]:
    return [method for each in operations(pattern) for method in each.methods] or ["GET"]
