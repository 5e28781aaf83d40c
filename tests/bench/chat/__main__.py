"""`python -m tests.bench.chat`: bring everything up, run the cases, say which goals hold."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Final

from tests.bench import rig
from tests.bench.__main__ import end, introduce
from tests.bench.chat import cases, report
from tests.bench.chat.cases import Case, Chat, Measured
from tests.bench.rig import Rig

PEOPLE: Final = 2_000
_SECONDS: Final = 15.0
_QUICK_S: Final = 5.0
# Longer than two heartbeats and two looks at the heads, or than one of each.
_IDLE_S: Final = 65.0
_QUICK_IDLE_S: Final = 33.0


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, end)
    try:
        is_exact = _run(options)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if is_exact else 1)


def _run(options: argparse.Namespace) -> bool:
    """Return whether every count was exact."""
    seconds = options.seconds or (_QUICK_S if options.quick else _SECONDS)
    began = time.monotonic()
    with rig.running(upstream_port=0) as running:
        introduce(running, seconds)
        from tests.bench.chat import seed

        people = seed.people(PEOPLE)
        ids, keys = zip(*people, strict=True)
        chat = Chat(seed.room(*ids[:100]), keys)
        long = seed.room(ids[0])
        seed.fill(long, options.long)
        seed.leave()
        running.books.settle_down()
        cases.measure(cases.FLOOD, running, chat, min(seconds, 3.0))
        flood, paced, one = (
            _said(case, running, chat, seconds) for case in (cases.FLOOD, cases.PACED, cases.ONE)
        )
        idle = cases.hold(running, keys, _QUICK_IDLE_S if options.quick else _IDLE_S)
        print(report.idle_line(idle), flush=True)
        pull = cases.pull(os.environ["DATABASE_URL"], long, ids[0], options.long)
        print(report.pull_line(pull))
        print("\n".join(map(str, report.goals(flood, paced, one, idle, pull))))
        print(f"{time.monotonic() - began:.0f} s in all")
    return not any(measured.outcome.faults for measured in (flood, paced, one))


def _said(case: Case, running: Rig, chat: Chat, seconds: float) -> Measured:
    measured = cases.measure(case, running, chat, seconds)
    print(report.line(measured), flush=True)
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench chat", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="short cases: a minute and a half in all")
    add("--seconds", type=float, help="how long each case lasts")
    add("--long", type=int, default=1_000_000, help="messages in the long chat")
    return parser


if __name__ == "__main__":
    main()
