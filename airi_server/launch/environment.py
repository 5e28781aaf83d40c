"""What the settings of a laptop are read from: two URLs and two secrets, made once and kept.

Whatever the caller's environment says already, wins.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from airi_server.launch import private
from airi_server.launch.stack import Stack


@contextlib.contextmanager
def storage(directory: Path) -> Iterator[Stack | None]:
    """Put DATABASE_URL and REDIS_URL into the environment for as long as they answer.

    Yields:
        The stack both come from, or None when the caller's environment names both.
    """
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        yield None
        return
    with Stack(directory) as stack:
        os.environ.setdefault("DATABASE_URL", stack.database_url)
        os.environ.setdefault("REDIS_URL", stack.redis_url)
        yield stack


def apply(directory: Path, *, settings: str = "airi_server.settings.dev") -> None:
    """Put everything else the settings need into the environment."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    for name, value in _kept_secrets(directory / "secrets.json").items():
        os.environ.setdefault(name, value)


def _kept_secrets(file: Path) -> dict[str, str]:
    kept = private.read(file)
    wanted = {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "LLM_ROUTER_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    complete = {**wanted, **kept}
    if complete != kept:
        private.write(file, complete)
    return complete
