"""What no test notices the type checker may: `./run test` has both.

Most of what it refuses are values that are as false as the right one, `None` for `False`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant

NAME: Final = "mypy"
_FOUND: Final = 1
"""Its status when it has found something; 2 is a failure of its own."""


def refuses(mutant: Mutant, tree: Path) -> bool:
    """Return whether the file does not type-check once it is broken; the tree stays as it is."""
    file = tree / mutant.path
    healthy = file.read_text(encoding="utf-8")
    file.write_text(mutant.text, encoding="utf-8")
    try:
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", mutant.path],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    finally:
        file.write_text(healthy, encoding="utf-8")
    return checked.returncode == _FOUND
