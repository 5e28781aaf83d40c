"""Stream buffer: a bounded queue between the owner task and the response that reads from it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

MAX_QUEUED_BYTES: Final = 262_144
Write = Callable[[bytes], Awaitable[None]]
Pour = Callable[[Write], Awaitable[None]]
"""Writes everything there is, part by part."""


class StreamAborted(Exception):
    """The stream broke: the connection has to end abnormally, so that an SDK raises."""


class StreamBuffer:
    """Bytes from one writer to one reader. What waits is handed over joined.

    A slow reader keeps the writer waiting in `pass_on`, so that the upstream is read no faster
    than the client reads. After `leave` nobody reads any more and bytes are dropped.
    """

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._aborted = False
        self._left = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._write: Write | None = None
        self.passed = 0
        """How many parts have been brought on their way."""

    @property
    def has_ended(self) -> bool:
        return self._ended

    async def pass_on(self, part: bytes) -> None:
        """Bring a part on its way, and return when there is room for another.

        While the reader sleeps in `pour` the part is written here: to wake a second task for
        each part would cost as much as the write.
        """
        self.passed += 1
        if self._write is not None and self._reader is not None and not self._reader.done():
            try:
                await self._write(part)
            except Exception:
                self.put(part)  # the reader meets the same error, and leaves
            except BaseException:
                self.put(part)
                raise
            return
        self.put(part)
        while self._size >= MAX_QUEUED_BYTES and not self._left:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def put(self, part: bytes) -> None:
        """Leave a part to the reader, whether there is room or not."""
        self.passed += 1
        if not self._left:
            self._queue.append(part)
            self._size += len(part)
            self._wake(self._reader)

    def end(self, *, aborted: bool = False) -> None:
        self._ended = True
        self._aborted = aborted
        self._wake(self._reader)

    def leave(self) -> None:
        """The reader is gone: drop what waits and let the writer run on."""
        self._left = True
        self._queue.clear()
        self._size = 0
        self._ended = True
        self._wake(self._reader)
        self._wake(self._writer)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield what was put, in order, until the end.

        Raises:
            StreamAborted: The writer ended the stream as broken.
        """
        while True:
            if self._queue:
                part = self._queue[0] if len(self._queue) == 1 else b"".join(self._queue)
                self._queue.clear()
                self._size = 0
                self._wake(self._writer)
                yield part
            elif self._ended:
                if self._aborted:
                    raise StreamAborted
                return
            else:
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader

    async def pour(self, write: Write) -> None:
        """Write what was put, in order, until the end.

        Raises:
            StreamAborted: As `parts`.
        """
        self._write = write
        async for part in self.parts():
            await write(part)

    @staticmethod
    def _wake(sleeper: asyncio.Future[None] | None) -> None:
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)
