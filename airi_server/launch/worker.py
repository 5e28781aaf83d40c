"""One uvicorn process on the launcher's socket.

uvicorn's own supervisor is not used: killed, it leaves its workers behind. Each worker is a child
of the launcher and ends with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from typing import Any

import uvicorn

from airi_server.connections import Requests, Sockets
from airi_server.launch import processes

SOCKETS: dict[str, Any] = {
    "http": Requests,
    "ws": Sockets,
    "ws_max_size": 1_048_576,
    # A client that does not answer a ping until the next one is due is gone.
    "ws_ping_interval": 30.0,
    "ws_ping_timeout": 30.0,
    # One frame goes to many sockets: deflating it for each would cost more than it saves.
    "ws_per_message_deflate": False,
}
"""How uvicorn serves connections."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    options = parser.parse_args()
    processes.die_with_parent(signal.SIGTERM, parent=options.parent)
    server = uvicorn.Server(
        uvicorn.Config(
            "airi_server.asgi:application",
            loop="uvloop",
            **SOCKETS,
            lifespan="on",
            log_config=None,
            access_log=False,
            # Nobody stands between the client and this process, so nobody may speak for it.
            proxy_headers=False,
            server_header=False,
            # The application ends long streams itself; this only bounds what it cannot end.
            timeout_graceful_shutdown=int(os.environ.get("SHUTDOWN_GRACE_S", "25")) + 15,
        )
    )
    server.run(sockets=[socket.socket(fileno=options.socket)])
    if not server.started:
        sys.exit("The server did not start.")


if __name__ == "__main__":
    main()
