"""Sockets that have not authenticated yet: few, and few from one address."""

from __future__ import annotations

from collections import Counter
from typing import Final

from airi_server.kernel.loops import PerLoop

MAX_WAITING: Final = 100
MAX_FROM_ONE_ADDRESS: Final = 20


class Lobby:
    """Counts those who wait, for one event loop."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._count = 0

    def enter(self, address: str) -> bool:
        """Let somebody wait, unless too many do."""
        if self._count >= MAX_WAITING or self._waiting[address] >= MAX_FROM_ONE_ADDRESS:
            return False
        self._count += 1
        self._waiting[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Make room; once for each time somebody was let in."""
        self._count -= 1
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]


_lobbies = PerLoop(Lobby)


def current() -> Lobby:
    return _lobbies.get()
