"""What watching costs: three servers on one database, plain, with telemetry, with logs, in turns.

The collector and the log are read afterwards, so that a switch that does nothing is not free.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench import cases, pairs
from tests.bench.goals import Change, Findings, Goal
from tests.bench.pairs import Side
from tests.bench.rig import Rig
from tests.fakes.otlp import Receiver

_SAMPLED: Final = 0.1
_ROUNDS: Final = 10
_ROUND_S: Final = 4.0
_SPAN: Final = "llm.gateway.chat"
_LINE: Final = b'"request_id"'


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    log = rig.directory / "requests.log"
    with Receiver() as collector:
        with _sides(rig, collector.endpoint, log) as (plain, telemetry, logging):
            seconds, rounds = min(options.seconds, _ROUND_S), options.rounds or _ROUNDS
            sides = [plain, telemetry, logging]
            faults = pairs.alternate(rig, sides, seconds=seconds, rounds=rounds)
    spans = sum(span.name == _SPAN for span in collector.spans)
    lines = sum(_LINE in line for line in log.open("rb"))
    share, each = spans / max(1, telemetry.answers), lines / max(1, logging.answers)
    print(f"spans for {100 * share:.1f} % of the requests, {each:.2f} log lines a request")
    if not (0.5 * _SAMPLED < share < 1.5 * _SAMPLED and "gen_ai.client" in str(collector.metrics)):
        faults.append(f"{spans} spans of {telemetry.answers} requests: not what was to be measured")
    if each < 1:
        faults.append(f"{lines} lines of {logging.answers} requests: not what was to be measured")
    watched, logged = (pairs.change(plain, side, "server") for side in (telemetry, logging))
    return Findings([_telemetry(watched, share), _logging(logged, each)], faults)


@contextmanager
def _sides(rig: Rig, endpoint: str, log: Path) -> Iterator[list[Side]]:
    telemetry: dict[str, Any] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLING_RATIO": str(_SAMPLED),
    }
    with ExitStack() as ending:
        groups = {
            "plain": rig.servers,
            "telemetry": ending.enter_context(rig.others(**telemetry)),
            "logging": ending.enter_context(rig.others(log=log, LOG_LEVEL="INFO")),
        }
        for group in groups.values():
            group.grow(1)
        yield [
            Side(name, cases.MANY, cases.own(rig, cases.MODEL, group), rig.books)
            for name, group in groups.items()
        ]


def _telemetry(change: Change, share: float) -> Goal:
    wanted = "telemetry at 10 % sampling costs at most 10 % of the server's CPU"
    return Goal(wanted, f"{change.as_percent()}, {100 * share:.1f} % sampled", change.percent <= 10)


def _logging(change: Change, lines: float) -> Goal:
    """Return the verdict on one line; a request that writes two may cost twice as much."""
    each = change.percent / max(1.0, lines)
    came = f"{change.as_percent()} for {lines:.2f} lines a request: {each:.1f} % a line"
    return Goal(
        "one JSON log line a request costs at most 5 % of the server's CPU", came, each <= 5
    )
