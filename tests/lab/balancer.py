"""A TCP balancer: each connection goes to the next instance that takes it.

As a program it is one in a process of its own, and says on standard output where it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import uvloop

from airi_server.launch import processes

if TYPE_CHECKING:
    from tests.lab.instances import Instance


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


class ReadyBalancer(Balancer):
    """It asks its instances whether they are ready, and leaves out those that are not.

    `instances` may be changed while it runs.
    """

    def __init__(self, *instances: Instance) -> None:
        self.instances: Sequence[Instance] = instances
        self._ready: list[int] = []
        super().__init__(self._ready)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._probe()
        self._probing = asyncio.create_task(self._keep_probing())
        return self

    async def __aexit__(self, *given: object) -> None:
        self._probing.cancel()
        await asyncio.gather(self._probing, return_exceptions=True)
        await super().__aexit__(*given)

    async def _keep_probing(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(0.05)

    async def _probe(self) -> None:
        self._ready[:] = [
            each.port for each in list(self.instances) if await asyncio.to_thread(each.probe) == 200
        ]


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()


async def _serve(ports: list[int]) -> None:
    async with Balancer(ports) as balancer:
        print(balancer.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    processes.die_with_parent(signal.SIGKILL, parent=options.parent)
    uvloop.run(_serve(options.ports))


if __name__ == "__main__":
    main()
