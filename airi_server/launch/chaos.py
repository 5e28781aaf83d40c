"""`./run chaos …`: hand over to the runs that break things, which bring up what they break."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", *arguments])
