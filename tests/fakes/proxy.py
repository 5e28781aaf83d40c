"""TCP proxies that do to a connection what networks do: silence, delay, small pieces, cuts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class SilentProxy:
    """Use as an async context manager; it stands in front of `host` and `port`.

    After `silence` the connections made so far swallow what they are given; new ones work. After
    `swallow` new ones do so too. After `cut` there are none, and none can be made.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._generation = 0
        self._is_cut = False
        self._is_black_hole = False
        self._tasks: set[asyncio.Task[None]] = set()

    def silence(self) -> None:
        self._generation += 1

    def swallow(self) -> None:
        """Lead nowhere, for everybody, until `mend`."""
        self._is_black_hole = True
        self.silence()

    def cut(self) -> None:
        """End every connection and refuse new ones, until `mend`."""
        self._is_cut = True
        for task in self._tasks:
            task.cancel()

    def mend(self) -> None:
        self._is_cut = self._is_black_hole = False

    async def __aenter__(self) -> Self:
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
        born = -1 if self._is_black_hole else self._generation
        there, back = await asyncio.open_connection(*self._target)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(
                    self._pump(reader, back, born, is_answer=False),
                    self._pump(there, writer, born, is_answer=True),
                )
        finally:
            self._tasks.discard(task)
            back.close()
            writer.close()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        born: int,
        *,
        is_answer: bool,
    ) -> None:
        while data := await source.read(65_536):
            if born == self._generation:
                await self.pass_on(data, sink, is_answer=is_answer)
        sink.close()

    async def pass_on(self, data: bytes, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        sink.write(data)
        await sink.drain()


class FaultyProxy(SilentProxy):
    """Also delays each piece by `latency_s`, hands on one byte at a time, cuts after so many.

    `cuts` counts the connections that were reset, `passed` the bytes of both directions.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.latency_s = 0.0
        self.slices = False
        self.cuts = 0
        self.passed = 0
        self._left: dict[bool, int | None] = {False: None, True: None}

    def cut_after(self, count: int, *, is_answer: bool) -> None:
        """Reset the connection that carries the byte after the next `count` in that direction."""
        self._left = {is_answer: count, not is_answer: None}

    def keep(self) -> None:
        """Take `cut_after` back."""
        self._left = {False: None, True: None}

    async def pass_on(self, data: bytes, sink: asyncio.StreamWriter, *, is_answer: bool) -> None:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        left = self._left[is_answer]
        if left is not None and left < len(data):
            await self._write(data[:left], sink)
            self.keep()
            self.cuts += 1
            # What was written has to arrive before the reset overtakes it.
            await asyncio.sleep(0.002)
            sink.transport.abort()
            raise ConnectionResetError
        if left is not None:
            self._left[is_answer] = left - len(data)
        await self._write(data, sink)

    async def _write(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        self.passed += len(data)
        if not self.slices:
            sink.write(data)
            await sink.drain()
            return
        for byte in data:
            sink.write(bytes((byte,)))
            await sink.drain()
            await asyncio.sleep(0)
