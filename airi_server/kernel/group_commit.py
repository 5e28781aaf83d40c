"""Group commit: what arrives while one commit is under way goes together in the next.

One statement, one commit, and every waiter is answered only after its own commit. At one
connection it adds nothing; at 64 it turns 64 commits into one and a hot account into an ordinary
one. It is PostgreSQL's own idea, one floor up.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import psycopg

from airi_server.kernel import database
from airi_server.kernel.errors import Unavailable
from airi_server.kernel.loops import PerLoop

In = TypeVar("In")
Out = TypeVar("Out")
Run = Callable[[database.Connection, Sequence[In]], Awaitable[Sequence[Out]]]

MAX_BATCH = 128
MAX_WAITING = 10_000
ATTEMPTS = 3
ALONE_S = 5.0
"""How long a failed batch is tried member by member: several that wait for a lock, one after the
other, would keep everybody behind them waiting for minutes."""
ROLLED_BACK = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class Overloaded(Unavailable):
    """More work is waiting for the database than can be kept. Nothing was sent."""


class GroupCommit(Generic[In, Out]):
    """One kind of statement, run for as many members at once as are waiting.

    Args:
        run: Sends one statement, its own transaction, for all members and returns their results
            in the same order. Running a member again must be harmless: a lost connection hides
            whether the batch committed, and whoever waits decides about another try.
    """

    def __init__(self, run: Run[In, Out]) -> None:
        self._run = run
        self._lanes: PerLoop[_Lane[In, Out]] = PerLoop(lambda: _Lane(run))

    async def submit(self, member: In) -> Out:
        """Run `member` in the next batch and return its result after the commit.

        Raises:
            Overloaded: Too many are waiting.
            psycopg.OperationalError, PoolTimeout: The database is away, or the connection died
                and the outcome is unknown.
        """
        return await self._lanes.get().submit(member)


class _Lane(Generic[In, Out]):
    """The queue of one event loop and the single task that drains it while it is not empty."""

    def __init__(self, run: Run[In, Out]) -> None:
        self._run = run
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, member: In) -> asyncio.Future[Out]:
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded("The server is busy.", retry_after_s=1)
        future: asyncio.Future[Out] = self._loop.create_future()
        self._waiting.append((member, future))
        if self._drain is None:
            self._drain = self._loop.create_task(self._drain_all())
        return future

    async def _drain_all(self) -> None:
        try:
            async with database.connection() as lent:
                while self._waiting and not lent.broken:
                    await self._run_next(lent)
        except database.AWAY as away:
            self._fail_all(away)
        finally:
            self._drain = None
            if self._waiting:
                self._drain = self._loop.create_task(self._drain_all())

    def _fail_all(self, away: Exception) -> None:
        while self._waiting:
            _refuse(self._waiting.popleft()[1], away)

    async def _run_next(self, lent: database.Connection) -> None:
        count = min(len(self._waiting), MAX_BATCH)
        batch = [self._waiting.popleft() for _ in range(count)]
        try:
            results = await self._run_with_retries(lent, [member for member, _ in batch])
        except Exception as failure:
            await self._after_failure(lent, batch, failure)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _run_with_retries(
        self, lent: database.Connection, members: Sequence[In]
    ) -> Sequence[Out]:
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._run(lent, members)
            except ROLLED_BACK:
                await asyncio.sleep(random.uniform(0, 0.02 * attempt))  # noqa: S311  jitter
        return await self._run(lent, members)

    async def _after_failure(
        self,
        lent: database.Connection,
        batch: list[tuple[In, asyncio.Future[Out]]],
        failure: Exception,
    ) -> None:
        """One bad member must not fail its neighbors: run each alone, if there is a way to."""
        if len(batch) == 1 or lent.broken:
            for _, future in batch:
                _refuse(future, failure)
            return
        give_up_at = asyncio.get_running_loop().time() + ALONE_S
        for member, future in batch:
            if asyncio.get_running_loop().time() > give_up_at:
                _refuse(future, failure)
                continue
            try:
                (result,) = await self._run(lent, [member])
            except Exception as own_failure:
                _refuse(future, own_failure)
            else:
                if not future.done():
                    future.set_result(result)


def _refuse(future: asyncio.Future[Out], failure: Exception) -> None:
    if not future.done():
        future.set_exception(failure)
