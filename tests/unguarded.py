"""Past the guards of the database, as somebody with a superuser's psql: for corrupting and loading.

Its triggers fire always, also for a session that calls itself a replica, so they are switched off
one by one, and on again as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

GUARDS: Final = """
SELECT tgrelid::regclass::text, quote_ident(tgname) FROM pg_trigger WHERE tgenabled = 'A'
"""


class Session(Protocol):
    """A cursor of Django's or of psycopg."""

    def execute(self, query: Any, /) -> Any: ...
    def fetchall(self) -> list[Any]: ...


@contextmanager
def unguarded(session: Session) -> Iterator[None]:
    """Let this session write what it wants meanwhile; whoever else writes waits for it."""
    session.execute(GUARDS)
    guards = session.fetchall()
    for table, name in guards:
        session.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
    yield
    for table, name in guards:
        session.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
