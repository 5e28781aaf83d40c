"""The answer of an upstream, taken part by part as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

PART_BYTES: Final = 64
"""What a part takes beside its bytes: an upstream may send them one by one."""


class Source(Protocol):
    """The connection that an answer comes over."""

    def go_on(self) -> None: ...

    def hang_up(self) -> None: ...


class Disconnected(ConnectionError):
    """The connection ended before its answer. `heard` is whether anything of it had come."""

    def __init__(self, *, heard: bool) -> None:
        super().__init__("The upstream hung up.")
        self.heard = heard


class Malformed(Exception):
    """What came is no HTTP, or more of it than a head may have."""


class Response:
    """An answer whose head has come. Its body is taken as it comes; `close` lets go of the rest.

    `headers` has the first value of each name, names in lower case. The rest belongs to the
    connection, which lets go of it with the last byte.
    """

    __slots__ = (
        "_waiter", "connection", "failure", "headers", "is_whole", "parts", "size", "status",
    )  # fmt: skip

    def __init__(self, connection: Source) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection: Source | None = connection
        self.parts: list[bytes] = []
        self.size = 0
        self.is_whole = False
        self.failure: Callable[[], Exception] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def take(self) -> bytes:
        """Return what has come since the last call, waiting until something has; b"" is the end.

        What came before a failure is returned first.

        Raises:
            TimeoutError: Nothing has come for too long.
            ConnectionError: The body broke off.
            Malformed: It is not framed as HTTP has it.
        """
        while not self.parts:
            if self.failure is not None:
                raise self.failure()
            if self.connection is None:
                return b""
            await self.news()
        parts, self.parts, self.size = self.parts, [], 0
        if self.connection is not None:
            self.connection.go_on()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def put(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part) + PART_BYTES

    async def news(self) -> None:
        """Wait until something has happened to it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let go of the rest, if there is one, by hanging up."""
        if self.connection is not None:
            self.connection.hang_up()
