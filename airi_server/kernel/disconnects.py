"""Client disconnects, noticed while a request is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from airi_server.kernel import alarms
from airi_server.kernel.alarms import Alarm

Receive = Callable[[], Awaitable[dict[str, Any]]]
PATIENCE_S: Final = 0.25
"""A request that ends sooner is not worth a task that watches its client."""


class ClientConnection:
    """Tells when the client hangs up. Costs one alarm until a request has lasted a moment."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._alarm: Alarm | None = None
        self._watch: asyncio.Task[None] | None = None

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once if the client leaves before `close`."""
        self._alarm = alarms.after(PATIENCE_S, partial(self._begin, callback))

    def _begin(self, callback: Callable[[], None]) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait(callback))

    async def _wait(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback()

    def close(self) -> None:
        """Stop watching: the request is answered. Leaves no cycle for the collector."""
        if self._alarm:
            self._alarm.cancel()
        if self._watch:
            self._watch.cancel()
        self._alarm = self._watch = None
