"""What the settings of a laptop are read from: two URLs and two secrets, made once and kept.

Whatever the caller's environment says already, wins: each of the two URLs by itself.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airi_server.launch import locks, private, processes
from airi_server.launch.stack import Stack
from airi_server.launch.supervisor import STATE

DEMO: Final = "demo.json"
_CALLED_FROM: Final = "AIRI_CALLED_FROM"


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the state is kept for as long as a command runs.

    Args:
        stack: Our servers, or None when the caller's environment names others.
        serving_url: PostgreSQL for whoever serves: with our own servers another role than the
            owner, whose URL is in the environment.
    """

    stack: Stack | None
    serving_url: str

    @property
    def has_roles(self) -> bool:
        """Whether the database is ours, so that its owner and who serves are two roles."""
        return self.stack is not None and self.serving_url == self.stack.serving_url


def called_from() -> Path:
    """Return where whoever typed `./run` stands; the script itself has gone to its own place."""
    return Path(os.environ.get(_CALLED_FROM) or ".").absolute()


def data_directory(given: Path | None) -> Path:
    """Return where everything is kept: what was given, or `.data` beside the script."""
    return processes.ROOT / ".data" if given is None else called_from() / given


def follow(directory: Path) -> None:
    """Work on what the `./run` that serves from this directory works on.

    It may have been given other servers than its own; here the caller's environment wins too.
    """
    if not locks.is_served(directory):
        return
    served, own = private.read(directory / DEMO), private.read(directory / STATE)
    for variable, name, in_state in (
        ("DATABASE_URL", "serving_database_url", "serving_url"),
        ("REDIS_URL", "redis_url", "redis_url"),
    ):
        is_given = name in served and served[name] != own.get(in_state)
        if is_given and not os.environ.get(variable):
            os.environ[variable] = served[name]


@contextlib.contextmanager
def storage(directory: Path) -> Iterator[Storage]:
    """Put DATABASE_URL and REDIS_URL into the environment for as long as they answer."""
    given = os.environ.get("DATABASE_URL")
    if given and os.environ.get("REDIS_URL"):
        yield Storage(None, given)
        return
    with Stack(directory) as stack:
        os.environ["DATABASE_URL"] = given or stack.owner_url
        os.environ["REDIS_URL"] = os.environ.get("REDIS_URL") or stack.redis_url
        yield Storage(stack, given or stack.serving_url)


def apply(directory: Path, *, settings: str = "airi_server.settings.dev") -> None:
    """Put everything else the settings need into the environment.

    Call it within `locks.starting`: of two processes that make secrets, one would lose its own.
    """
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
