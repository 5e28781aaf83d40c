"""A TCP balancer: each connection goes to the next instance that takes it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Sequence
from typing import Self

from airi_server.launch import processes


class Balancer:
    """Use as an async context manager. It knows nothing of what passes through it.

    Args:
        ports: Of the instances; may be changed while it runs.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = 0
        self._ports = ports
        self._turns = itertools.count()
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    def cut(self, share: float, rng: random.Random) -> int:
        """Reset a share of the connections and return how many that were."""
        chosen = rng.sample(list(self._open), round(share * len(self._open)))
        for task in chosen:
            for writer in self._open.get(task, ()):
                writer.transport.abort()
        return len(chosen)

    @property
    def base_url(self) -> str:
        return f"http://{processes.LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, processes.LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = (writer,)
        try:
            there, back = await self._dialed()
            self._open[task] = (writer, back)
            # Cancelled only at the end, when nobody is to hear of it.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except OSError:
            pass  # nobody is there: the client's to see
        finally:
            for each in self._open.pop(task):
                each.close()

    async def _dialed(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        turn = next(self._turns)
        for place in range(len(self._ports) - 1):
            with contextlib.suppress(OSError):
                return await self._dial(turn + place)
        return await self._dial(turn + len(self._ports) - 1)

    async def _dial(self, turn: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._ports:
            raise ConnectionRefusedError
        port = self._ports[turn % len(self._ports)]
        return await asyncio.open_connection(processes.LOOPBACK, port)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()
