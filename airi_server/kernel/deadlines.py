"""Deadlines: `asyncio.timeout` behind an alarm, for what nearly always ends in time.

asyncio's asks for the running loop and task six times and makes a timer each time it is moved; here
both cost a tenth.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from airi_server.kernel import alarms
from airi_server.kernel.alarms import Alarm


class Deadline:
    """Use it once, as an asynchronous context manager: what is inside may last so many seconds.

    As `asyncio.Timeout`, it cancels the task and turns that, and no other cancellation, into
    `TimeoutError` where the block is left.
    """

    __slots__ = ("_alarm", "_cancelling", "_has_passed", "_seconds", "_task", "_when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._when = math.inf
        self._has_passed = False
        self._alarm: Alarm | None = None

    def when(self) -> float:
        """Return the instant, in the loop's time; infinite until the block has begun."""
        return self._when

    def reschedule(self, when: float) -> None:
        """Move it.

        Raises:
            RuntimeError: It has passed, or its block is not under way.
        """
        if self._alarm is None or self._has_passed:
            raise RuntimeError("The deadline is over.")
        self._when = when
        self._alarm.move(when)

    async def __aenter__(self) -> Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A deadline is for a task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._alarm = alarms.after(self._seconds, self._pass)
        self._when = self._alarm.when
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._has_passed:
            others = self._task.uncancel() > self._cancelling
            if kind is asyncio.CancelledError and not others:
                raise TimeoutError from failure

    def _pass(self) -> None:
        self._has_passed = True
        self._task.cancel()
