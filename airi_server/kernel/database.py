"""Asynchronous pools of PostgreSQL connections for the hot path: one for each event loop.

Everything that is not the hot path uses the ORM. Statements here are files under `<app>/sql`,
prepared on first use, and each call of `fetch` is one round trip and one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import psycopg
from django.conf import settings
from django.db import connection as django_connection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from airi_server.kernel import instance
from airi_server.kernel.loops import PerLoop
from airi_server.kernel.silence import Silence

T = TypeVar("T")
Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
LOST_S: Final = 2.0
"""After a restart of the database each connection of the pool may turn out to be dead."""
AWAY = (psycopg.OperationalError, PoolTimeout, psycopg.errors.ReadOnlySqlTransaction)
"""The database is away, busy, not to be written to (as a standby before its promotion) or lost
the connection; trying again later is right."""

round_trips = 0
"""Statements sent by this process, for the tests that count them."""


def was_lost(away: Exception) -> bool:
    """Return whether a connection died under its statement, so that the outcome is unknown.

    A pool without a free connection and a lock or statement that timed out are known outcomes.
    """
    if isinstance(away, PoolTimeout) or not isinstance(away, psycopg.OperationalError):
        return False
    return away.sqlstate is None or away.sqlstate.startswith(("08", "57P"))


BOUNDS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def _conninfo() -> str:
    """Return the connection string of Django's default database, test database included."""
    database = django_connection.settings_dict
    given = {k: v for k, v in database["OPTIONS"].items() if k not in ("pool", "options")}
    return psycopg.conninfo.make_conninfo(
        **(BOUNDS | given),  # what DATABASE_URL says of them wins
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
        host=database["HOST"],
        port=str(database["PORT"]),
        application_name=instance.APPLICATION_NAME,
        options="-c lock_timeout=2s -c statement_timeout=10s -c jit=off "
        "-c idle_in_transaction_session_timeout=10s -c timezone=UTC",
    )


def _new_pool() -> AsyncConnectionPool[Connection]:
    return AsyncConnectionPool(
        _conninfo(),
        min_size=2,
        max_size=settings.HOT_POOL_MAX,
        open=False,
        timeout=settings.HOT_POOL_TIMEOUT_S,
        kwargs={"autocommit": True, "prepare_threshold": 0},
        name="airi-hot",
    )


async def _replace_pool() -> None:
    """Begin anew: what the old pool has is dead, and it may be minutes before it tries again."""
    if pool := _pools.pop():
        await pool.close(timeout=0)


async def _drain_pool() -> None:
    await _pools.get().drain()


_pools = PerLoop(_new_pool)
_silences = PerLoop(lambda: Silence(_conninfo, over=_replace_pool, dead=_drain_pool))


@asynccontextmanager
async def connection() -> AsyncIterator[Connection]:
    """Lend a connection in autocommit mode.

    Raises:
        PoolTimeout, psycopg.OperationalError: The database is away or busy; nothing was sent.
    """
    silence = _silences.get()
    if silence.is_on:
        silence.refuse()
    pool = _pools.get()
    if pool.closed:
        await pool.open()
    try:
        async with pool.connection() as lent:
            yield lent
    except PoolTimeout:
        silence.ask()
        raise


async def execute(lent: Connection, sql: str, params: Mapping[str, Any]) -> list[Row]:
    """Run one prepared statement, which is its own transaction, and return every row."""
    global round_trips  # noqa: PLW0603  a process-wide count is what the tests assert
    round_trips += 1
    silence = _silences.get()
    timer = silence.watch(lent)
    try:
        cursor = await lent.execute(sql.encode(), params, prepare=True)
        has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
        return await cursor.fetchall() if has_rows else []
    finally:
        silence.answered(lent, timer)


async def fetch(sql: str, params: Mapping[str, Any]) -> list[Row]:
    """Read in one round trip; again if the connection turns out to be dead."""

    async def once() -> list[Row]:
        async with connection() as lent:
            return await execute(lent, sql, params)

    return await retried(once)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Do `work`, and again while connections die under it, for `LOST_S` from the first one.

    Only for what may run twice: a lost connection hides whether its statement ran.

    Raises:
        psycopg.OperationalError, PoolTimeout: The database is away, or went on dying.
    """
    give_up_at: float | None = None
    while True:
        try:
            return await work()
        except AWAY as away:
            # Counted from the first loss: one that was silent took longer than this by itself.
            now = asyncio.get_running_loop().time()
            give_up_at = give_up_at or now + LOST_S
            if not was_lost(away) or now > give_up_at:
                raise
        await asyncio.sleep(0.02)


async def knock() -> None:
    """Connect once, past the pool, which says that it has no connection and not why.

    Raises:
        psycopg.OperationalError: With the server's own words.
    """
    async with await psycopg.AsyncConnection.connect(_conninfo()):
        pass


async def close() -> None:
    """Close this loop's pool; called once, at shutdown."""
    if silence := _silences.pop():
        silence.close()
    if pool := _pools.pop():
        await pool.close()
