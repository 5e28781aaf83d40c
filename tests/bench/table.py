"""The main table: each kind of request by itself, its rate, its cost and its books."""

from __future__ import annotations

import argparse

from tests.bench import cases, cpu, report
from tests.bench.cases import Case, Measured
from tests.bench.goals import Findings, Goal
from tests.bench.load import Outcome
from tests.bench.rig import Rig


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    seconds = options.seconds
    idle_mb = cpu.resident_mb(rig.kinds["server"])
    _warm_up(rig, min(seconds, 4.0))
    runs: dict[Case, Measured] = {}
    short = min(seconds, 5.0)
    direct = _direct(rig, cases.DIRECT, min(short, 2.0))
    runs[cases.ONE] = _said(rig, cases.ONE, short, added_to=direct.p50)
    runs[cases.STREAM_ONE] = _said(rig, cases.STREAM_ONE, short)
    stream = _direct(rig, cases.DIRECT_STREAM, short)
    for case in _cases(options):
        runs[case] = _said(rig, case, seconds)
    print(f"server memory: {idle_mb} MB idle, {cpu.resident_mb(rig.kinds['server'])} MB now")
    faults = [f"{case.label}: {fault}" for case, run in runs.items() for fault in run.faults]
    return Findings(_goals(runs, direct, stream, idle_mb), faults)


def _cases(options: argparse.Namespace) -> list[Case]:
    found = [cases.MANY, cases.ONE_USER, cases.STREAMS, cases.STREAMS_AT_ONCE, cases.FLUX]
    return [case for case in found if not (options.quick and case is cases.STREAMS_AT_ONCE)]


def _direct(rig: Rig, case: Case, seconds: float) -> Outcome:
    outcome = cases.fire(case, cases.upstream(rig), seconds)
    first = f" | first byte p50 {outcome.first_p50:.2f} ms" if case.is_stream else ""
    print(f"{report.short_line(case, outcome)}{first}", flush=True)
    return outcome


def _said(rig: Rig, case: Case, seconds: float, *, added_to: float | None = None) -> Measured:
    measured = cases.measure(case, rig, cases.own(rig), seconds)
    added = None if added_to is None else measured.outcome.p50 - added_to
    print(report.line(measured, added_ms=added), flush=True)
    return measured


def _warm_up(rig: Rig, seconds: float) -> None:
    for case in (cases.MANY, cases.STREAMS, cases.FLUX):
        cases.fire(case, cases.own(rig), seconds / 3)


def _goals(
    runs: dict[Case, Measured], direct: Outcome, stream: Outcome, idle_mb: int
) -> list[Goal]:
    many = runs[cases.MANY]
    cost = 1000 * many.cpu_s["server"] / max(1, many.outcome.complete)
    added = runs[cases.ONE].outcome.p50 - direct.p50
    first = runs[cases.STREAM_ONE].outcome.first_p50 - stream.first_p50
    alike = runs[cases.ONE_USER].outcome.rate / max(many.outcome.rate, 1)
    return [
        _rate("3,000 req/s a process", many, 3_000),
        Goal("0.35 CPU s/1k non-streaming", f"{cost:.3f}", cost <= 0.35),
        _rate("2,000 streams/s", runs[cases.STREAMS], 2_000),
        Goal("p50 at one connection adds at most 2 ms", f"{added:.2f} ms", added <= 2),
        Goal("first byte of a stream within 1 ms of the upstream's", f"{first:.2f} ms", first <= 1),
        _rate("4,000/s of GET /api/v1/flux", runs[cases.FLUX], 4_000),
        # Two runs of one and the same thing differ by so much.
        Goal("one user as fast as 64", f"{alike:.2f} times as fast", alike >= 0.9),
        Goal("resident memory idle under 160 MB", f"{idle_mb} MB", idle_mb < 160),
    ]


def _rate(wanted: str, measured: Measured, least: int) -> Goal:
    rate, seconds = measured.outcome.rate, max(measured.outcome.seconds, 0.001)
    cores, others = measured.cpu_s["server"] / seconds, measured.others_s / seconds
    came = f"{rate:,.0f}/s with {cores:.2f} core, while others had {others:.2f}"
    return Goal(wanted, came, rate >= least)
