"""`python -m tests.chaos [KIND]`: one run, reported; status 1 if anything was violated."""

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
from tests.chaos.paid import report as paid_report
from tests.chaos.paid import run as paid

_RATES: Final = {"paid": 25.0, "chat": 50.0}
"""What people do in a second, by what is put under stress."""


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"chaos {options.kind}: {options.seconds:.0f} s, seed {seed}", flush=True)
    began = time.monotonic()
    try:
        said, is_violated = asyncio.run(_run(options, seed))
    except KeyboardInterrupt:
        sys.exit(130)
    print(said)
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(1 if is_violated else 0)


async def _run(options: argparse.Namespace, seed: int) -> tuple[str, bool]:
    """Return what there is to say of a run, and whether anything was violated."""
    rate = options.rate or _RATES[options.kind]
    if options.kind == "chat":
        chatted = await chat.run(seed=seed, seconds=options.seconds, per_second=rate)
        return chat.told(chatted, seed=seed), bool(chatted.violations)
    report = await paid.run(seed=seed, seconds=options.seconds, per_second=rate)
    return paid_report.told(report, seed=seed), bool(report.violations)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    add = parser.add_argument
    add("kind", nargs="?", choices=_RATES, default="paid", help="what is put under stress")
    add("--seconds", type=float, default=60.0, help="how long things go wrong (default: 60)")
    add("--seed", type=int, help="of the faults; without it, a new one, which is printed")
    add("--rate", type=float, help="what people do in a second (default: 25; chat: 50)")
    return parser


if __name__ == "__main__":
    main()
