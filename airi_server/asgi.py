"""The ASGI application: HTTP through the edge, sockets through the upgrade, and the lifespan."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "airi_server.settings.production")

from airi_server import boot

boot.set_up()  # fills the app registry before anything below imports models

from airi_server import checks, telemetry
from airi_server.web import serve
from airi_server.web.bodies import Receive, Scope
from airi_server.web.handler import LeanASGIHandler, Send
from airi_server.web.http_protocols import HttpProtocol
from airi_server.web.lifespan import lifespan
from airi_server.web.middleware import Edge
from airi_server.web.websocket_origin import Upgrade
from chats.sockets.routing import websocket_urlpatterns

serve.Process.is_server = True
checks.warn_of_server()
# The instrumentation adds itself to the middleware, which the handler reads when it is made.
telemetry.set_up()
_http = Edge(LeanASGIHandler())
_sockets = Upgrade(websocket_urlpatterns)
HttpProtocol.is_socket = staticmethod(_sockets.serves)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await _sockets(scope, receive, send)
