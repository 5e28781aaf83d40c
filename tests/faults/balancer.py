"""A small balancer: TCP, one instance for each connection, and only those that are ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Self

from tests.faults.instances import Instance


class Balancer:
    """Use as an async context manager; `instances` may be changed while it runs."""

    def __init__(self, *instances: Instance) -> None:
        self.instances: Sequence[Instance] = instances
        self.base_url = ""
        self._ready: set[int] = set()
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        await self._probe()
        self._probing = asyncio.create_task(self._keep_probing())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in (self._probing, *self._tasks):
            task.cancel()
        await asyncio.gather(self._probing, *self._tasks, return_exceptions=True)

    async def _keep_probing(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(0.05)

    async def _probe(self) -> None:
        for each in list(self.instances):
            ready = await asyncio.to_thread(each.probe) == 200
            (self._ready.add if ready else self._ready.discard)(each.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ports = sorted(self._ready)
        port = ports[next(self._turn) % len(ports)]
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._tasks.discard(task)
            back.close()
            writer.close()

    @staticmethod
    async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()
