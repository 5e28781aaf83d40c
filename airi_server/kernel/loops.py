"""Per-loop singletons: pools, links and lanes belong to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Make `factory()` on first use in a loop and return the same instance from then on."""

    _all: ClassVar[WeakSet[PerLoop[Any]]] = WeakSet()

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        # A process has one loop and asks ten times a request: what it got last is at hand.
        self._latest: tuple[asyncio.AbstractEventLoop, T] | None = None
        self._all.add(self)

    def get(self) -> T:
        loop = asyncio.get_running_loop()
        latest = self._latest
        if latest is not None and latest[0] is loop:
            return latest[1]
        made = self._made.get(loop)
        if made is None:
            for each in list(self._all):
                each._let_go()  # noqa: SLF001  one of ours
            made = self._made[loop] = self._factory()
        self._latest = (loop, made)
        return made

    def pop(self) -> T | None:
        """Forget and return this loop's instance, if one was made."""
        self._latest = None
        return self._made.pop(asyncio.get_running_loop(), None)

    def _let_go(self) -> None:
        """Drop what was made for loops that have ended: it may refer to them, and keep them."""
        for over in [each for each in self._made if each.is_closed()]:
            self._made.pop(over, None)
        latest = self._latest
        if latest is not None and latest[0].is_closed():
            self._latest = None
