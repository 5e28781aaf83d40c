"""One server process on the launcher's socket; it ends with the launcher."""

from __future__ import annotations

import argparse
import signal
import socket

from airi_server import boot
from airi_server.launch import processes
from airi_server.web import serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    options = parser.parse_args()
    processes.die_with_parent(signal.SIGTERM, parent=options.parent)
    boot.set_up()
    serve.run(socket.socket(fileno=options.socket))


if __name__ == "__main__":
    main()
