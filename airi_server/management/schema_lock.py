"""The schema lock: of all processes, one at a time migrates a database and grants rights in it.

A PostgreSQL advisory lock of the session, so that the end of its holder ends it too (ADR 0044).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

LOCK: Final = 0x61697269_0002  # "airi", 2: any number nobody else locks
PAUSE_S: Final = 0.25


@contextlib.contextmanager
def held(connection: BaseDatabaseWrapper, *, say: Callable[[str], object]) -> Iterator[None]:
    """Keep other processes out of the block; within one session it may be nested.

    Args:
        connection: To the database that is changed. The lock is its session's.
        say: Told once, in a line, if somebody else has to be waited for.
    """
    if not _is_taken(connection):
        say("Another process is migrating this database; waiting for it ...")
        # Asked for again and again: a session that waits inside a statement has a snapshot, and
        # CREATE INDEX CONCURRENTLY of the holder would wait for that, and neither would end.
        while not _is_taken(connection):
            time.sleep(PAUSE_S)
    try:
        yield
    finally:
        with contextlib.suppress(DatabaseError):  # a session that broke has let go of it
            _ask(connection, "SELECT pg_advisory_unlock(%s)")


def _is_taken(connection: BaseDatabaseWrapper) -> bool:
    return _ask(connection, "SELECT pg_try_advisory_lock(%s)")


def _ask(connection: BaseDatabaseWrapper, statement: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [LOCK])
        return bool(cursor.fetchone()[0])
