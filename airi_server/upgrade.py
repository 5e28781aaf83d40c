"""What every socket passes before its consumer: an id for its log lines, and its origin checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from channels.routing import URLRouter
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.urls import URLPattern, re_path

from airi_server import edge
from airi_server.bodies import Receive, Scope
from airi_server.entry import Send
from airi_server.kernel import context
from airi_server.kernel.ids import uuid7


class Upgrade:
    """Serves sockets; what is not routed or comes from a foreign page is refused with 403."""

    def __init__(self, patterns: Sequence[URLPattern]) -> None:
        self._router = URLRouter([*patterns, re_path("", cast("Any", _refuse))])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context.request_id.set(str(uuid7()))
        # Programs send no origin; browsers always do, and a page cannot choose it.
        own = _own_origins(scope)
        if all(origin in own or edge.is_trusted(origin) for origin in _all(scope, b"origin")):
            await self._router(scope, receive, send)
        else:
            await _refuse(scope, receive, send)


def _own_origins(scope: Scope) -> set[str]:
    """Return where pages of this server itself may come from: the host that was asked for."""
    hosts = _all(scope, b"host")
    domains = [split_domain_port(host)[0] for host in hosts]
    if not all(validate_host(domain, settings.ALLOWED_HOSTS) for domain in domains):
        return set()
    return {f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts}


def _all(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


async def _refuse(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close"})
