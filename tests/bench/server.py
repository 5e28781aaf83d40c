"""The server as `./run` starts it, which also says on SIGUSR1 how much it has asked of others.

The counts are the kernel modules' own, so a statement is a round trip that was really made; they
go to a file of this process in the directory BENCH_COUNTS. The tasks are those of the running loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import orjson

from airi_server.launch import worker


def _write_counts(_number: int, _frame: FrameType | None) -> None:
    database = sys.modules.get("airi_server.kernel.database")
    redis = sys.modules.get("airi_server.kernel.redis")
    counts = {
        "statements": getattr(database, "round_trips", 0),
        "redis": getattr(redis, "commands_sent", 0),
        "tasks": len(asyncio.all_tasks()),
    }
    file = Path(os.environ["BENCH_COUNTS"], str(os.getpid()))
    draft = file.with_suffix(".new")
    draft.write_bytes(orjson.dumps(counts))
    draft.replace(file)


def main() -> None:
    signal.signal(signal.SIGUSR1, _write_counts)
    worker.main()


if __name__ == "__main__":
    main()
