"""Does the server keep anything of a request? Its memory and its tasks, as the requests go by."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Final

from tests.bench import cases, cpu
from tests.bench.goals import Findings, Goal
from tests.bench.rig import Rig

_FIRST: Final = 10_000
_STEPS: Final = 10
_STREAMS: Final = 10
"""One request in so many is a stream."""
_PATIENCE_S: Final = 1_800.0
_REST_S: Final = 2.0
_GROWTH: Final = 1.10


@dataclass(frozen=True, slots=True)
class Look:
    """What the server holds when it has nothing to do."""

    answers: int
    resident_mb: int
    tasks: int

    def __str__(self) -> str:
        return f"{self.resident_mb} MB and {self.tasks} tasks after {self.answers:,} requests"


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    """Serve the requests in steps, with a look after each; the first is 10,000."""
    books = rig.books
    before, answers, faults = books.totals(), 0, list[str]()
    idle = _look(rig, answers)
    print(idle, flush=True)
    first = min(_FIRST, options.requests // 2)
    steps = [first, *[(options.requests - first) // _STEPS] * _STEPS]
    looks = []
    for step in steps:
        done, wrong = _serve(rig, step)
        answers += done
        faults += wrong
        looks.append(_look(rig, answers))
        print(looks[-1], flush=True)
    faults += cases.mismatches(answers, books.totals() - before) + books.faults()
    early, late = looks[0], looks[-1]
    return Findings(_goals(early, late), faults)


def _serve(rig: Rig, count: int) -> tuple[int, list[str]]:
    streams = count // _STREAMS
    target = cases.own(rig)
    outcomes = [
        cases.fire(cases.MANY, target, _PATIENCE_S, most=count - streams),
        cases.fire(cases.STREAMS, target, _PATIENCE_S, most=streams),
    ]
    faults = [fault for outcome in outcomes for fault in cases.unanswered(outcome)]
    return sum(outcome.complete for outcome in outcomes), faults


def _look(rig: Rig, answers: int) -> Look:
    time.sleep(_REST_S)
    return Look(answers, cpu.resident_mb(rig.servers.pids), rig.servers.counted()["tasks"])


def _goals(early: Look, late: Look) -> list[Goal]:
    claim = f"after {late.answers:,} requests as after {early.answers:,}"
    memory = f"{late.resident_mb} MB, {early.resident_mb} MB"
    grown = late.resident_mb <= _GROWTH * early.resident_mb
    return [
        Goal(f"resident memory {claim} (within 10 %)", memory, grown),
        Goal(f"asyncio tasks {claim}", f"{late.tasks}, {early.tasks}", late.tasks <= early.tasks),
    ]
