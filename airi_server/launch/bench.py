"""`./run bench …`: hand over to the benchmark, which brings up what it measures."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", "tests.bench", *arguments])
