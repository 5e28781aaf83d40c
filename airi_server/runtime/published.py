"""Published versions: process copies of configuration, fresh within a second and never going back.

Truth is PostgreSQL. Every kind has a row in `published_version`, bumped in the transaction that
changes it. A process re-reads the versions when a hint arrives (Redis), when it changed something
itself, and at the latest every `POLL_S`; it loads again whatever is behind. All of it happens
inside the request that needs the copy, and only one request of a process does the reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

from django.db import connection, transaction

from airi_server.kernel import database, pubsub
from airi_server.kernel.loops import PerLoop

logger = logging.getLogger(__name__)

T = TypeVar("T")
Copies = dict[str, tuple[int, Any]]
"""The version and the value of each kind."""
TOPIC: Final = "published"
POLL_S: Final = 5.0
RETRY_S: Final = 1.0
VERSIONS_SQL: Final = "SELECT name, version FROM published_version"
BUMP_SQL: Final = """
INSERT INTO published_version AS known (name, version) VALUES (%s, 1)
ON CONFLICT (name) DO UPDATE SET version = known.version + 1
"""

_kinds: dict[str, Published[Any]] = {}
_changes = 0  # bumped when this process published something, or was told that another one did


class Published(Generic[T]):
    """One kind of published thing and how to load it.

    Args:
        name: Row of `published_version`.
        load: Reads the newest value, asynchronously, outside any transaction.
    """

    def __init__(self, name: str, load: Callable[[], Awaitable[T]]) -> None:
        self.name = name
        self.load = load
        _kinds[name] = self

    def current(self) -> T:
        """Return this process's copy; `refresh` has to have been awaited in this request."""
        copies = _copies.get()
        if copies is None:  # not in a request
            copies = _watches.get().copies
        copy: T = copies[self.name][1]
        return copy


class _Watch:
    """The copies of one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.copies: Copies = {}
        self.seen_changes = -1
        self.due = 0.0
        self.lock = asyncio.Lock()
        pubsub.listen()

    def is_fresh(self) -> bool:
        return (
            self.seen_changes == _changes
            and self.loop.time() < self.due
            and len(self.copies) == len(_kinds)
        )

    async def check(self) -> None:
        async with self.lock:
            if self.is_fresh():
                return
            changes = _changes
            try:
                await self._load_what_is_behind()
            except Exception as failed:
                if len(self.copies) < len(_kinds):
                    raise
                if isinstance(failed, database.AWAY):
                    logger.warning("Kept a possibly stale copy: the database is away")
                else:  # it holds what this version cannot read
                    logger.exception("Kept a possibly stale copy")
                self.due = self.loop.time() + RETRY_S
            else:
                self.due = self.loop.time() + POLL_S
            self.seen_changes = changes

    async def _load_what_is_behind(self) -> None:
        rows: dict[str, int] = {str(n): v for n, v in await database.fetch(VERSIONS_SQL, {})}
        for name, kind in _kinds.items():
            version = rows.get(name, 0)
            if name not in self.copies or self.copies[name][0] < version:
                self.copies[name] = (version, await kind.load())


_watches = PerLoop(_Watch)
_copies: ContextVar[Copies | None] = ContextVar("copies", default=None)
"""Those of the loop that a request runs in, which would have to be asked for seven times else."""


async def refresh() -> None:
    """Bring every copy up to date. Costs nothing unless a version may have changed.

    Raises:
        psycopg.OperationalError, PoolTimeout: The database is away and there is no copy yet.
    """
    watch = _watches.get()
    if not watch.is_fresh():
        await watch.check()
    _copies.set(watch.copies)


def announce(name: str) -> None:
    """Bump the version of `name` in the caller's transaction; tell everybody once it commits."""
    with connection.cursor() as cursor:
        cursor.execute(BUMP_SQL, [name])
    transaction.on_commit(lambda: _tell(name))


def _tell(name: str) -> None:
    _mark_changed({})
    pubsub.send(TOPIC, name=name)


def _mark_changed(_facts: dict[str, Any]) -> None:
    global _changes  # noqa: PLW0603  one counter for every loop and thread of the process
    _changes += 1


pubsub.on(TOPIC, _mark_changed)
pubsub.on(pubsub.CONNECTED, _mark_changed)
