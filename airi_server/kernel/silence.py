"""Dead connections: tell a slow statement from a connection that leads nowhere.

A statement may take as long as the server's time-outs allow. One that has had no answer for
`QUIET_S` is asked about, over a new connection: the database says whether it is at work on it. If
it is not, or does not answer this either, the connection is hung up, which its statement sees as
any other lost connection. While the database answers nothing, nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg_pool import PoolTimeout

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

QUIET_S: Final = 1.0
ASKED_S: Final = 2.0
AGAIN_S: Final = 0.5
LONGEST_S: Final = 12.0
"""Just above the statement timeout: the answer would have come."""
AT_WORK_SQL: Final = """
SELECT pid FROM pg_stat_activity
WHERE pid = ANY(%s) AND (state = 'active' OR state_change > clock_timestamp() - interval '0.5 s')
"""


@dataclass(frozen=True, slots=True)
class _Statement:
    """One that has had no answer: the session that has it, and when it was sent."""

    pid: int
    since: float


class Silence:
    """Watches the statements of one event loop.

    Args:
        conninfo: How to reach the database.
        over: Called when the database answers again after it did not.
        dead: Called when one connection was dead and the database was not: the others may be too.

    Attributes:
        is_on: The database did not answer the last question.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        over: Callable[[], Awaitable[None]],
        dead: Callable[[], Awaitable[None]],
    ) -> None:
        self.is_on = False
        self._conninfo = conninfo
        self._over, self._dead = over, dead
        self._loop = asyncio.get_running_loop()
        self._quiet: dict[Connection, _Statement] = {}
        self._task: asyncio.Task[None] | None = None
        self._left: set[asyncio.Task[Any]] = set()

    def watch(self, lent: Connection) -> asyncio.TimerHandle:
        """Return a timer to be handed to `answered` once the statement has ended."""
        return self._loop.call_later(QUIET_S, self._suspect, lent)

    def answered(self, lent: Connection, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        if self._quiet:
            self._quiet.pop(lent, None)

    def refuse(self) -> None:
        """Refuse calls that would wait for the database, which goes on being asked.

        Raises:
            PoolTimeout: Always.
        """
        self.ask()
        raise PoolTimeout("the database does not answer")

    def ask(self) -> None:
        """Find out whether the database answers, unless that is under way."""
        if self._task is None:
            self._task = self._loop.create_task(self._ask_until_answered())

    def close(self) -> None:
        for task in (self._task, *self._left):
            if task is not None:
                task.cancel()

    def _suspect(self, lent: Connection) -> None:
        self._quiet[lent] = _Statement(lent.info.backend_pid, self._loop.time() - QUIET_S)
        self.ask()

    async def _ask_until_answered(self) -> None:
        try:
            await self._ask_once()
            while self._quiet or self.is_on:
                await asyncio.sleep(AGAIN_S)
                await self._ask_once()
        finally:
            self._task = None

    async def _ask_once(self) -> None:
        suspects = dict(self._quiet)
        at_work = await self._at_work([statement.pid for statement in suspects.values()])
        lost = [each for each in suspects.items() if self._is_lost(*each, at_work)]
        for lent, _ in lost:
            del self._quiet[lent]
            _hang_up(lent)
        if at_work is None:
            self.is_on = True
        elif self.is_on:
            await self._over()
            self.is_on = False
        elif lost:
            await self._dead()

    def _is_lost(self, lent: Connection, statement: _Statement, at_work: set[int] | None) -> bool:
        if self._quiet.get(lent) is not statement:  # it has been answered meanwhile
            return False
        is_at_work = at_work is not None and statement.pid in at_work
        return not is_at_work or self._loop.time() - statement.since > LONGEST_S

    async def _at_work(self, pids: list[int]) -> set[int] | None:
        """Return which of these sessions have something to do; None if the server is silent."""
        asking = self._loop.create_task(_fetch(self._conninfo(), pids))
        await asyncio.wait({asking}, timeout=ASKED_S)
        if not asking.done():
            # Where this process itself has stood still the answer is there, but not read yet.
            await asyncio.sleep(0.01)
        if not asking.done():
            # To be cancelled may take it seconds, which nothing waits for.
            asking.cancel()
            self._left.add(asking)
            asking.add_done_callback(self._left.discard)
            return None
        if away := asking.exception():
            # It refuses more sessions, or starts: a server that says so is there.
            return set(pids) if "FATAL" in str(away) else None
        return asking.result()


async def _fetch(conninfo: str, pids: list[int]) -> set[int]:
    asking = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    async with asking:
        rows = await (await asking.execute(AT_WORK_SQL, [pids])).fetchall()
    return {pid for (pid,) in rows}


def _hang_up(lent: Connection) -> None:
    """End a connection under its statement, which then fails as if the other side had."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(lent.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
