"""The server process: uvicorn with our protocols and bounds, on a socket that is bound already.

Whatever serves the application is made here: `manage.py serve`, the launcher and the tests differ
in who starts the process and in nothing that a client could notice.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from socket import socket
from types import FrameType
from typing import Any, Final

import uvicorn
from django.conf import settings

from airi_server.web.http_protocols import HttpProtocol, WebSocketProtocol

APPLICATION: Final = "airi_server.asgi:application"
CONNECTIONS: Final[dict[str, Any]] = {
    "http": HttpProtocol,
    "ws": WebSocketProtocol,
    "ws_max_size": 1_048_576,
    # A client that does not answer a ping until the next one is due is gone.
    "ws_ping_interval": 30.0,
    "ws_ping_timeout": 30.0,
    # One frame goes to many sockets: deflating it for each would cost more than it saves.
    "ws_per_message_deflate": False,
}
"""How uvicorn serves connections."""
MARGIN_S: Final = 15
"""What uvicorn waits beyond the grace: the application ends long streams itself, and this only
bounds what it cannot end."""


class Process:
    """What this process is: a server of the application, and then made by `config` or not."""

    is_server = False
    is_configured = False


def config(application: Any = APPLICATION, **differing: Any) -> uvicorn.Config:
    """Return how the application is served; a test says what differs."""
    Process.is_configured = True
    options: dict[str, Any] = {
        **CONNECTIONS,
        "loop": "uvloop",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        # Whom to believe is the application's to decide (TRUSTED_PROXIES).
        "proxy_headers": False,
        "timeout_graceful_shutdown": settings.SHUTDOWN_GRACE_S + MARGIN_S,
    }
    return uvicorn.Config(application, **(options | differing))


class Server(uvicorn.Server):
    """uvicorn's, which calls `started` once it accepts connections."""

    def __init__(self, how: uvicorn.Config, started: Callable[[], None] | None = None) -> None:
        super().__init__(how)
        self._tell_started = started

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._tell_started is not None:
            self._tell_started()


def run(listener: socket, *, started: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and let what is under way finish within the bounds.

    Raises:
        SystemExit: 0 after a signal, anything else if the server did not start.
    """
    # uvicorn raises a signal again when it has done what it asks for: that is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    logging.captureWarnings(capture=True)  # each is a line of the log, as everything is
    server = Server(config(), started)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit("The server did not start.")


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
