"""One process, two behind one port, two instances: what a second one brings, with exact books.

The load generator calls two instances by their two ports, which is a balancer that costs nothing;
the tests' own balancer is measured beside it. Each user calls both instances at once.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from airi_server.launch import processes
from tests.bench import cases, pairs
from tests.bench.cases import Target
from tests.bench.goals import Change, Findings, Goal
from tests.bench.pairs import Side
from tests.bench.rig import Rig
from tests.bench.servers import spawn

_CASE: Final = replace(cases.MANY, users=32)
_ROUNDS: Final = 6
_ROUND_S: Final = 5.0
_WANTED: Final = 1.6


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    with _sides(rig, options.workers or 2) as (one, *more):
        seconds, rounds = min(options.seconds, _ROUND_S), options.rounds or _ROUNDS
        faults = pairs.alternate(rig, [one, *more], seconds=seconds, rounds=rounds)
    return Findings([_goal(one, side) for side in more], faults)


@contextmanager
def _sides(rig: Rig, workers: int) -> Iterator[list[Side]]:
    with ExitStack() as ending:
        shared = ending.enter_context(rig.others())
        shared.grow(workers)
        pair = [ending.enter_context(rig.others()) for _ in range(2)]
        for each in pair:
            each.grow(1)
        balanced, pid = ending.enter_context(_balancer(cases.own(rig, cases.MODEL, *pair)))
        yield [
            Side("one process", _CASE, cases.own(rig), rig.books),
            Side(f"{workers} processes, one port", _CASE, cases.own(rig, cases.MODEL, shared),
                 rig.books),
            Side("two instances, two ports", _CASE, cases.own(rig, cases.MODEL, *pair), rig.books),
            Side("two instances, the tests' balancer", _CASE, balanced, rig.books,
                 beside={"balancer": [pid]}),
        ]  # fmt: skip


@contextmanager
def _balancer(behind: Target) -> Iterator[tuple[Target, int]]:
    """Lead to the same servers through a balancer in a process of its own."""
    process = spawn("lab.balancer", *map(str, behind.ports), pipes=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield replace(behind, ports=[port]), process.pid
    finally:
        processes.stop(process, how=signal.SIGKILL, patience_s=5)


def _goal(one: Side, more: Side) -> Goal:
    """Judge only where there are cores for what the larger rate would take, all kinds together."""
    faster = Change.between(one.rates(), more.rates())
    dearer = pairs.change(one, more, *pairs.PAID)
    needed, there = _WANTED * sum(one.cores.values()), (os.cpu_count() or 1) - more.others
    holds = faster.middle >= _WANTED
    is_judged = holds or needed <= there
    came = f"{faster} the rate, {dearer} the CPU of server and PostgreSQL a request"
    if not is_judged:
        came += f"; {_WANTED} times would take {needed:.1f} cores, {there:.1f} were there"
    return Goal(f"{more.name}: at least {_WANTED} times one", came, holds if is_judged else None)
