"""The commands of `./run`, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from airi_server.launch import bench, chaos, manage, mutants, serve, tests
from airi_server.launch.stack import StackFailed

_COMMANDS: Final[dict[str, Callable[[list[str]], None]]] = {
    "serve": serve.main,
    "test": tests.main,
    "check": tests.check,
    "manage": manage.main,
    "bench": bench.main,
    "chaos": chaos.main,
    "mutants": mutants.main,
}


def main() -> None:
    name, *arguments = sys.argv[1:] or ["serve"]
    if name.startswith("-"):  # `./run --port 8001` means serve.
        name, arguments = "serve", [name, *arguments]
    if name not in _COMMANDS:
        sys.exit(f"./run: no command {name!r}; there are {', '.join(_COMMANDS)}.")
    try:
        _COMMANDS[name](arguments)
    except StackFailed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
