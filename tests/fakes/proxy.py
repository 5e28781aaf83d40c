"""A TCP proxy whose connections can go silent, as when a host on the way dies without a word."""

from __future__ import annotations

import asyncio
import contextlib


class SilentProxy:
    """Use as an async context manager; it stands in front of `host` and `port`.

    After `silence` the connections made so far swallow what they are given; new ones work. After
    `cut` there are none, and none can be made.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._generation = 0
        self._is_cut = False
        self._tasks: set[asyncio.Task[None]] = set()

    def silence(self) -> None:
        self._generation += 1

    def cut(self) -> None:
        """End every connection and refuse new ones, until `mend`."""
        self._is_cut = True
        for task in self._tasks:
            task.cancel()

    def mend(self) -> None:
        self._is_cut = False

    async def __aenter__(self) -> SilentProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._is_cut:
            writer.close()
            return
        self._tasks.add(task)
        born = self._generation
        there, back = await asyncio.open_connection(*self._target)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(
                    self._pump(reader, back, born), self._pump(there, writer, born)
                )
        finally:
            self._tasks.discard(task)
            back.close()
            writer.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, born: int
    ) -> None:
        while data := await source.read(65_536):
            if born == self._generation:
                sink.write(data)
                await sink.drain()
        sink.close()
