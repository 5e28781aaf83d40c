"""The ASGI application: HTTP through the edge, sockets through the upgrade, and the lifespan."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airi_server.settings.production")

import django

django.setup()  # fills the app registry before anything below imports models

from airi_server import telemetry
from airi_server.bodies import Receive, Scope
from airi_server.edge import Edge
from airi_server.entry import LeanASGIHandler, Send
from airi_server.lifespan import lifespan
from airi_server.upgrade import Upgrade
from chats.routing import websocket_urlpatterns

# The instrumentation adds itself to the middleware, which the handler reads when it is made.
telemetry.set_up()
_http = Edge(LeanASGIHandler())
_sockets = Upgrade(websocket_urlpatterns)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await _sockets(scope, receive, send)
