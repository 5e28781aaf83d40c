"""Write coalescing: what is written in one turn of the loop leaves in one system call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

MAX_JOINED_BYTES: Final = 65_536
"""More than this leaves at once, so that the transport can say that it is full."""


class JoinedWrites:
    """A transport of which the writes of one turn of the loop leave as one.

    uvloop makes a system call of each write, and each wakes the peer: an answer would be two, its
    head and its body.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._is_ended = False
        self.linger: Callable[[], bool] | None = None

    def write(self, data: bytes) -> None:
        if self._size + len(data) > MAX_JOINED_BYTES:
            self.flush()
            self._write(data)
            return
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write what waits now; drop it once the connection is closing."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        """End what is written; the connection itself may go on to be read for a moment."""
        if self._is_ended:
            self.transport.close()
            return
        self.flush()
        self._is_ended = True
        if self.linger is None or not self.linger():
            self.transport.close()

    def is_closing(self) -> bool:
        return self._is_ended or self.transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _write(self, data: bytes) -> None:
        if not self.is_closing():
            self.transport.write(data)
