"""The tests' TCP balancer in a process of its own; it says on standard output where it listens."""

from __future__ import annotations

import argparse
import asyncio
import signal

import uvloop

from airi_server.launch import processes
from tests.fakes.balancer import Balancer


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
