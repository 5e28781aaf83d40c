"""Sockets that do nothing but stay, in a process of their own.

Reads its plan as one line of JSON, says `{"open": …}` in a line when all are open, stays until a
second line comes in, and then says what has happened.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any, Final

import orjson
import uvloop

from airi_server.launch import processes
from tests.bench.chat import wire

_DIALS_AT_ONCE: Final = 32


async def _hold(plan: dict[str, Any]) -> dict[str, int]:
    slots = asyncio.Semaphore(_DIALS_AT_ONCE)
    frames = 0

    def take(_payload: bytes) -> None:
        nonlocal frames
        frames += 1

    async def dial(key: str) -> wire.Line:
        async with slots:
            return await wire.dial(plan["host"], plan["port"], f"/ws/chat?token={key}", take)

    lines = await asyncio.gather(*(dial(key) for key in plan["keys"]))
    _say({"open": len(lines)})
    await asyncio.to_thread(sys.stdin.buffer.readline)
    lost = sum(line.lost.done() for line in lines)
    pings = sum(line.pings for line in lines)
    for line in lines:
        line.close()
    return {"lost": lost, "pings": pings, "frames": frames}


def _say(facts: dict[str, int]) -> None:
    sys.stdout.buffer.write(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    processes.die_with_parent(signal.SIGKILL, parent=parser.parse_args().parent)
    _say(uvloop.run(_hold(orjson.loads(sys.stdin.buffer.readline()))))


if __name__ == "__main__":
    main()
