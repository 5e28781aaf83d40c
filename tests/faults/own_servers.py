"""A PostgreSQL and a Valkey of one's own, to be stopped, killed and made read-only."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from django.core.management import call_command
from django.db import connection

from airi_server.launch.postgres import Postgres
from tests import serving_role


class OwnPostgres:
    """A durable cluster; `settings` is what Django calls its database, filled by `prepare`.

    Start it in the main thread: PostgreSQL ends with the thread that has started it.
    """

    def __init__(self, directory: Path) -> None:
        # Made without waiting for the disk, which takes seconds; used with all it promises.
        self.server = Postgres(directory, durable=False)
        self.server._make()
        self.server._durable = True
        self.start()
        parts = urlsplit(self.server.url)
        self.settings: dict[str, Any] = {
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname,
            "PORT": parts.port,
        }

    def start(self) -> None:
        self.server.start()
        self.server.wait()

    def stop(self) -> None:
        """End it as a deploy does: sessions are cut at once, what was committed is kept."""
        self.server.stop()

    def kill(self) -> None:
        """End it as a power cut does: a commit that had not to reach the disk may be lost."""
        self.server._process.send_signal(signal.SIGKILL)
        self.server._process.wait()

    def prepare(self, original: str) -> None:
        """Take over the schema of the database with this URL, which costs less than migrating.

        Its grants come with it, for the role that has to be here first.
        """
        self.execute(serving_role.MAKE)
        dump = self.server._log.with_name("schema")
        self.run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={original}")
        self.run("pg_restore", "--exit-on-error", f"--dbname={self.server.url}", dump)

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's own programs."""
        command = [self.server._programs / program, *arguments]
        subprocess.run(command, check=True, timeout=60)

    def url_of(self, database: str) -> str:
        return self.server.url.rsplit("/", 1)[0] + f"/{database}"

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as session:
            session.execute("SET default_transaction_read_only = off")
            session.execute(sql.encode())

    def make_read_only(self, is_on: bool) -> None:
        """Refuse to write, in sessions that are open too, until it is taken back."""
        self.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if is_on else 'off'}")
        self.execute("SELECT pg_reload_conf()")


@contextmanager
def working_on(settings: dict[str, Any], *, emptied: bool = True) -> Iterator[None]:
    """Have this process work on another database meanwhile."""
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(settings)
    try:
        if emptied:
            call_command("flush", interactive=False, verbosity=0)
        yield
    finally:
        connection.close()
        connection.settings_dict.update(before)
