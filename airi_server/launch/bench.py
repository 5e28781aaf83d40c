"""`./run bench PART …`, `./run bench chat …`: hand over to what brings up what it measures."""

from __future__ import annotations

import os
import sys
from typing import Final

_MODULES: Final = {"chat": "tests.bench.chat"}


def main(arguments: list[str]) -> None:
    module = "tests.bench"
    if arguments and arguments[0] in _MODULES:
        module = _MODULES[arguments.pop(0)]
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
