"""Hundreds of streams at the pace of tokens: how late is a chunk at the client?

The load is put on the upstream alone first: what it sees there is the measurement's own.
"""

from __future__ import annotations

import argparse
from typing import Final

from tests.bench import cases, report
from tests.bench.goals import Findings, Goal
from tests.bench.load import Outcome
from tests.bench.rig import Rig

_GOAL_MS: Final = 20.0
_OWN_MS: Final = 5.0
_LEAST_S: Final = 5.0


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    case, seconds = cases.PACED_STREAMS, max(options.seconds, _LEAST_S)
    direct = cases.fire(case, cases.upstream(rig), _LEAST_S)
    print(f"direct to the upstream: {_late(direct)}", flush=True)
    cases.fire(cases.MANY, cases.own(rig), 2.0)
    measured = cases.measure(case, rig, cases.own(rig), seconds)
    outcome = measured.outcome
    print(report.line(measured))
    print(f"through the server: {_late(outcome)}", flush=True)
    late = outcome.delays["first p99"]
    own = direct.delays["first p99"]
    came = f"p50 {outcome.delays['first p50']:.1f}, p99 {late:.1f} ms; {_chunks(outcome)}"
    holds = late <= _GOAL_MS
    # A machine on which nobody at all is on time cannot tell who is late.
    is_judged = holds or own <= _OWN_MS
    if not is_judged:
        came += f"; the upstream alone was late by {own:.1f} ms"
    wanted = (
        f"{case.connections} concurrent paced streams: first byte within {_GOAL_MS:.0f} ms of the "
        "upstream's at p99"
    )
    return Findings([Goal(wanted, came, holds if is_judged else None)], measured.faults)


def _late(outcome: Outcome) -> str:
    first = ", ".join(f"{n} {outcome.delays[f'first {n}']:.2f}" for n in ("p50", "p99", "worst"))
    return (
        f"first chunk {first} ms after it was written; {_chunks(outcome)}, "
        f"{outcome.delays['chunks'] / outcome.seconds:.0f} chunks/s | "
        f"the load used {outcome.cpu_s / outcome.seconds:.2f} core"
    )


def _chunks(outcome: Outcome) -> str:
    return "later chunks " + ", ".join(
        f"{name} {outcome.delays[f'later {name}']:.1f}" for name in ("p50", "p99")
    )
