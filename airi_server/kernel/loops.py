"""One instance of something for each event loop: pools, links and lanes belong to their loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Make `factory()` on first use in a loop and return the same instance from then on."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            made = self._made[loop] = self._factory()
        return made

    def pop(self) -> T | None:
        """Forget and return this loop's instance, if one was made."""
        return self._made.pop(asyncio.get_running_loop(), None)
