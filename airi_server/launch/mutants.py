"""`./run mutants …`: hand over to what breaks the code, which brings up what it needs."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", "tests.mutants", *arguments])
