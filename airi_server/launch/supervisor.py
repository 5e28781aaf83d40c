"""The process that owns a stack's two servers and ends with its last user.

It is a process of its own so that no command's end takes the servers from another command, and
so that a killed command leaves nothing behind: the kernel gives its lock back, and the supervisor,
which waits for exactly that, stops both servers in order.

    locks      supervisor.lock   exclusive: the supervisor, all its life (its starter hands it down)
               users.lock        shared: every user; exclusive: nobody uses it any more
    promises   stack.json exists while the servers answer
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from airi_server.launch import private
from airi_server.launch.postgres import OWNER, SERVING, Postgres
from airi_server.launch.valkey import Valkey

SUPERVISOR_LOCK: Final = "supervisor.lock"
USERS_LOCK: Final = "users.lock"
STATE: Final = "stack.json"
LOG: Final = "supervisor.log"


def keep(directory: Path, *, durable: bool) -> None:
    """Run the servers until the last user has left or is dead."""
    postgres, valkey = Postgres(directory, durable=durable), Valkey(directory)
    # Held to the end, so that nobody joins a stack that is on its way out.
    with (directory / USERS_LOCK).open("ab") as users, contextlib.ExitStack() as servers:
        postgres.start()
        servers.callback(postgres.stop)
        valkey.start()
        servers.callback(valkey.stop)
        postgres.wait()
        valkey.wait()
        private.write(
            directory / STATE,
            {
                "database_url": postgres.url,
                "owner_url": postgres.url_of(OWNER),
                "serving_url": postgres.url_of(SERVING),
                "redis_url": valkey.url,
                "supervisor_pid": str(os.getpid()),
            },
        )
        servers.callback(_withdraw, directory)
        signal.signal(signal.SIGTERM, _on_dismissal)
        signal.signal(signal.SIGCHLD, _on_server_death)
        fcntl.flock(users, fcntl.LOCK_EX)


def _withdraw(directory: Path) -> None:
    """Begin the end: from here on no signal may cut PostgreSQL's own shutdown short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    (directory / STATE).unlink(missing_ok=True)


def _on_dismissal(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _on_server_death(_number: int, _frame: FrameType | None) -> None:
    sys.exit("PostgreSQL or Valkey ended by itself; its log says why.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--lock", type=int, required=True)
    parser.add_argument("--not-durable", action="store_true")
    options = parser.parse_args()
    # The lock lives in this descriptor: a server that inherited it would keep it after us.
    os.set_inheritable(options.lock, False)  # noqa: FBT003
    try:
        keep(options.directory, durable=not options.not_durable)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
