"""The database of the trials: migrated once, copied for every run that left something behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

PRISTINE: Final = "pristine"
TRIAL: Final = "trial"


class Books:
    """Two databases of one server: `url` is where trials run."""

    def __init__(self, server_url: str, redis_url: str) -> None:
        self._server_url = server_url
        self.url = _with_name(server_url, TRIAL)
        self.redis_url = redis_url

    def prepare(self, tree: Path) -> None:
        """Migrate a database as the tree says, and make the first copy."""
        self._run(f"DROP DATABASE IF EXISTS {PRISTINE} WITH (FORCE)", f"CREATE DATABASE {PRISTINE}")
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            cwd=tree,
            env={**os.environ, "DATABASE_URL": _with_name(self._server_url, PRISTINE)},
            check=True,
        )
        self.renew()

    def renew(self) -> None:
        """Make the database of the trials as it was before any of them, and Redis empty."""
        self._run(
            f"DROP DATABASE IF EXISTS {TRIAL} WITH (FORCE)",
            f"CREATE DATABASE {TRIAL} TEMPLATE {PRISTINE}",
        )
        self.forget()

    def forget(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    def install(self, statement: str) -> bool:
        """Install a function of the hot path; return whether PostgreSQL takes it."""
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement.encode())
        except psycopg.Error:
            return False
        return True

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def _with_name(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
