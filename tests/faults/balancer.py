"""A balancer that asks its instances whether they are ready, and leaves out those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from tests.fakes.balancer import Balancer
from tests.processes.instances import Instance


class ReadyBalancer(Balancer):
    """Use as an async context manager; `instances` may be changed while it runs."""

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
