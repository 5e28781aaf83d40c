"""The commands of `./run`, by name."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from airi_server.launch import manage, serve, tests
from airi_server.launch.private import Unusable
from airi_server.launch.stack import StackFailed


def _module(name: str, arguments: list[str], **parts: str) -> None:
    """Let a module of the tests take our place: it brings up itself what it measures or breaks."""
    if arguments and arguments[0] in parts:
        name, arguments = parts[arguments[0]], arguments[1:]
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])


_COMMANDS: Final[dict[str, Callable[[list[str]], None]]] = {
    "serve": serve.main,
    "test": tests.main,
    "check": tests.check,
    "manage": manage.main,
    "bench": partial(_module, "tests.bench", chat="tests.bench.chat"),
    "chaos": partial(_module, "tests.chaos"),
}
_MACHINES: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE}
)
"""What a machine refuses that is no bug of ours."""


def main() -> None:
    name, *arguments = sys.argv[1:] or ["serve"]
    if name.startswith("-"):  # `./run --port 8001` means serve.
        name, arguments = "serve", [name, *arguments]
    if name not in _COMMANDS:
        sys.exit(f"./run: no command {name!r}; there are {', '.join(_COMMANDS)}.")
    try:
        _COMMANDS[name](arguments)
    except (Unusable, StackFailed) as failure:
        sys.exit(f"./run: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as failure:
        if failure.errno not in _MACHINES:
            raise
        place = f"{failure.filename}: " if failure.filename else ""
        sys.exit(f"./run: {place}{failure.strerror}.")


if __name__ == "__main__":
    main()
