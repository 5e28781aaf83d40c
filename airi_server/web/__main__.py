"""One worker of `manage.py serve`: a process that serves on a socket it has inherited."""

from __future__ import annotations

import argparse
import os
import signal
from socket import socket

from airi_server import boot
from airi_server.web import serve, supervisor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--parent", type=int, help="end when this process does")
    parser.add_argument("--started", type=int, help="a pipe that hears when we accept connections")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, supervisor.HEARD)
    if options.parent is not None:
        supervisor.die_with_parent(signal.SIGTERM, parent=options.parent)
    boot.set_up()

    def started() -> None:
        os.write(options.started, b"1")
        os.close(options.started)

    serve.run(socket(fileno=options.socket), started=started if options.started else None)


if __name__ == "__main__":
    main()
