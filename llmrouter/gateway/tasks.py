"""Owner tasks: a paid request runs in a task of the process, which a disconnect does not cancel.

A paid request runs in a task of its own from its open row to its settlement. The response only
reads what the task hands out. On shutdown the tasks are waited for, hurried, and waited for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
LAST_SETTLEMENTS_S: Final = 10.0


class Hurried(Protocol):
    """Something that can be told to end soon."""

    def finish_soon(self, reason: str, *, within_s: float) -> None: ...


_tasks: set[asyncio.Task[Any]] = set()
_running: set[Hurried] = set()


def own(work: Coroutine[Any, Any, T], of: Hurried | None = None) -> asyncio.Task[T]:
    """Run `work` in a task that nothing but the end of the process cancels."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    if of is not None:
        _running.add(of)

    def disown(ended: asyncio.Task[T]) -> None:
        _tasks.discard(ended)
        if of is not None:
            _running.discard(of)
        # Whoever waits gets the exception; an answer nobody waits for is not reported as lost.
        if not ended.cancelled():
            ended.exception()

    task.add_done_callback(disown)
    return task


def count() -> int:
    return len(_tasks)


async def drain(grace_s: float) -> None:
    """Wait for every paid request: for its own end first, then hurried to its settlement."""
    await _wait(grace_s)
    for running in list(_running):
        running.finish_soon("shutdown", within_s=0)
    await _wait(LAST_SETTLEMENTS_S)
    if _tasks:
        logger.error("Ended with paid requests open", extra={"open": len(_tasks)})


async def _wait(timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while (mine := [task for task in _tasks if task.get_loop() is loop]) and loop.time() < until:
        await asyncio.wait(mine, timeout=until - loop.time())
