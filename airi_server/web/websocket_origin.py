"""Checks of a websocket handshake: its host, its origin, an id for its lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from channels.routing import URLRouter
from django.urls import URLPattern, re_path

from airi_server.kernel import context
from airi_server.kernel.ids import uuid7
from airi_server.web import hosts, middleware
from airi_server.web.bodies import Receive, Scope
from airi_server.web.handler import Send


class Upgrade:
    """Serves sockets; what is not routed or comes from a foreign page is refused with 403."""

    def __init__(self, patterns: Sequence[URLPattern]) -> None:
        self._patterns = [each.pattern for each in patterns]
        self._router = URLRouter([*patterns, re_path("", cast("Any", _refuse))])

    def serves(self, path: str) -> bool:
        """Return whether a socket may be opened at a path."""
        return any(pattern.match(path.removeprefix("/")) for pattern in self._patterns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context.request_id.set(str(uuid7()))
        if hosts.refusal(scope):
            await _refuse(scope, receive, send)
            return
        # Programs send no origin; browsers always do, and a page cannot choose it.
        own = _own_origins(scope)
        if all(origin in own or middleware.is_trusted(origin) for origin in _all(scope, b"origin")):
            await self._router(scope, receive, send)
        else:
            await _refuse(scope, receive, send)


def _own_origins(scope: Scope) -> set[str]:
    """Return where pages of this server itself may come from: the host that was asked for."""
    return {f"{each}://{host}" for each in ("http", "https") for host in _all(scope, b"host")}


def _all(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


async def _refuse(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close"})
