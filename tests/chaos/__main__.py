"""`python -m tests.chaos KIND`: one run, reported; status 1 if anything was violated."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from types import FrameType
from typing import Final

from tests.chaos.chat import run as chat

_KINDS: Final = ("chat",)


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"chaos {options.kind}: {options.seconds:.0f} s, seed {seed}", flush=True)
    began = time.monotonic()
    try:
        running = chat.run(seed=seed, seconds=options.seconds, per_second=options.rate)
        report = asyncio.run(running)
    except KeyboardInterrupt:
        sys.exit(130)
    print(chat.told(report, seed=seed))
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(1 if report.violations else 0)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    add = parser.add_argument
    add("kind", choices=_KINDS, help="what is put under stress")
    add("--seconds", type=float, default=60.0, help="how long things go wrong (default: 60)")
    add("--seed", type=int, help="of the faults; without it, a new one, which is printed")
    add("--rate", type=float, default=50.0, help="what people do in a second (default: 50)")
    return parser


if __name__ == "__main__":
    main()
