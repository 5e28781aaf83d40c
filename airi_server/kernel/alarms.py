"""Alarms: timers of which hardly any rings, all behind one timer of their loop.

A request sets some and has ended before one is due. A timer of the loop's own is three objects and
a place in a heap, taken and given back in two turns of the loop; an alarm is an entry of a set,
which is looked through when the first of those that are left may be due: a few times a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Final

from airi_server.kernel.loops import PerLoop

GRAIN_S: Final = 0.01
"""Between two looks: an alarm may ring this much late."""


class Alarm:
    """One that is set. It rings in the context it was set in, as a timer does."""

    __slots__ = ("_clock", "_context", "_ring", "when")

    def __init__(self, clock: _Clock, when: float, ring: Callable[[], None]) -> None:
        self.when = when
        self._clock = clock
        self._context: Context | None = copy_context()
        self._ring: Callable[[], None] | None = ring

    def move(self, when: float) -> None:
        """Ring at another time, if it has not rung."""
        self.when = when
        if self._ring is not None:
            self._clock.look_by(when)

    def cancel(self) -> None:
        self._clock.alarms.discard(self)
        self._ring = self._context = None  # leaves no cycle for the collector

    def ring(self) -> None:
        """Ring, unless another one that was due has canceled it a moment ago."""
        context, ring = self._context, self._ring
        self.cancel()
        if context is not None and ring is not None:
            context.run(ring)


class _Clock:
    """The alarms of one event loop."""

    def __init__(self) -> None:
        self.alarms: set[Alarm] = set()
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def look_by(self, when: float) -> None:
        if when < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = when
            self._timer = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._due = None, math.inf
        now = self.loop.time()
        due = [alarm for alarm in self.alarms if alarm.when <= now]
        if len(due) < len(self.alarms):
            first = min(alarm.when for alarm in self.alarms if alarm.when > now)
            self.look_by(max(first, now + GRAIN_S))
        for alarm in sorted(due, key=lambda alarm: alarm.when):
            try:
                alarm.ring()
            except Exception as failure:
                told = {"message": "An alarm failed", "exception": failure}
                self.loop.call_exception_handler(told)


_clocks = PerLoop(_Clock)


def at(when: float, ring: Callable[[], None]) -> Alarm:
    """Call `ring` at an instant of the running loop, unless it is canceled before."""
    clock = _clocks.get()
    alarm = Alarm(clock, when, ring)
    clock.alarms.add(alarm)
    clock.look_by(when)
    return alarm


def after(seconds: float, ring: Callable[[], None]) -> Alarm:
    """Call `ring` so much later, unless it is canceled before."""
    clock = _clocks.get()
    alarm = Alarm(clock, clock.loop.time() + seconds, ring)
    clock.alarms.add(alarm)
    clock.look_by(alarm.when)
    return alarm
