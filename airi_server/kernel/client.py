"""The client's connection as the hot path sees it: somebody who may leave before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

Receive = Callable[[], Awaitable[dict[str, Any]]]
PATIENCE_S: Final = 0.25
"""A request that ends sooner is not worth a task that watches its client."""


class ClientConnection:
    """Tells when the client hangs up. Costs one timer until a request has lasted a moment."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` once if the client leaves before `close`."""
        loop = asyncio.get_running_loop()

        def start() -> None:
            self._watch = loop.create_task(self._wait(callback))

        self._timer = loop.call_later(PATIENCE_S, start)

    async def _wait(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback()

    def close(self) -> None:
        """Stop watching: the request is answered. Leaves no cycle for the collector."""
        if self._timer:
            self._timer.cancel()
        if self._watch:
            self._watch.cancel()
        self._timer = self._watch = None
