"""Node, and packages for it: installed once for this checkout, each of them pinned."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from airi_server.launch import tests
from tests.lab.server import ROOT

HERE: Final = Path(__file__).parent
HOMES: Final = ROOT / ".boot" / "node"


def missing() -> str:
    """Say what keeps these tests from running here; nothing if they can."""
    return "" if tests.node() else "no Node on this machine: install node and npm"


def must_run() -> bool:
    """Return whether a test that cannot run is a failure: where nobody reads what was skipped."""
    return os.environ.get("CI") == "true" or os.environ.get("AIRI_CLIENTS") == "required"


needed = pytest.mark.skipif(bool(missing()) and not must_run(), reason=missing())


def script(name: str, *packages: str) -> Path:
    """Return a script of this directory where it can import the packages.

    Args:
        name: The script's file.
        packages: `name@version` of everything it needs, also of what those need.
    """
    if missing():
        pytest.fail(missing())
    home = HOMES / packages[0].replace("/", "+")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers want it as well
        _install(home, packages)
        shutil.copy(HERE / name, home / name)
    return home / name


def _install(home: Path, packages: Sequence[str]) -> None:
    done = home / "installed.txt"
    if done.is_file() and done.read_text().split() == list(packages):
        return
    done.unlink(missing_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    ran = subprocess.run(
        [*command, *packages], cwd=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    done.write_text("\n".join(packages))
