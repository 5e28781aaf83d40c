"""Sockets that somebody has authenticated on: so many of one key, and of one user.

For each process: instances do not ask each other, so behind a balancer it is that many on each.
"""

from __future__ import annotations

from collections import Counter

from accounts.revalidation import Caller
from airi_server.kernel.loops import PerLoop
from chats import options, telemetry


class Seats:
    """Counts who has how many, for one event loop."""

    def __init__(self) -> None:
        self._taken: Counter[tuple[str, str]] = Counter()

    def take(self, caller: Caller) -> bool:
        """Let a socket in, unless its key or its user has as many as may be; 0 is no limit."""
        most = (options.CHAT_SOCKETS_PER_KEY.current(), options.CHAT_SOCKETS_PER_USER.current())
        for name, limit in zip(_names(caller), most, strict=True):
            if limit and self._taken[name] >= limit:
                telemetry.socket_refused(name[0])
                return False
        self._taken.update(_names(caller))
        return True

    def give_back(self, caller: Caller) -> None:
        """Make room, when a connection that was let in has ended; once for each."""
        for name in _names(caller):
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]


def _names(caller: Caller) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("key", caller.api_key_id), ("user", caller.user_id)


_seats = PerLoop(Seats)


def current() -> Seats:
    return _seats.get()
