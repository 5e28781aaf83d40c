"""How a case is told: one line; the rate first, then its cost, then whether the money is right."""

from __future__ import annotations

import os

from tests.bench.cases import Case, Measured
from tests.bench.load import Outcome


def line(measured: Measured, *, added_ms: float | None = None) -> str:
    """Return the line of a case on our own server; `added_ms` is what it adds to the upstream."""
    case, outcome = measured.case, measured.outcome
    speed = short_line(case, outcome)
    if case.is_stream:
        speed += f", first byte p50 {outcome.first_p50:.2f} ms"
    if added_ms is not None:
        speed += f", added p50 {added_ms:.2f} ms"
    others = measured.others_s / max(outcome.seconds, 0.001)
    totals = measured.totals
    written = f"{outcome.complete} answers, {totals.settled} rows, {totals.debits} debits"
    noise = f"others used {others:.2f} of {os.cpu_count()} cores, pace {measured.pace_ms:.1f} ms"
    verdict = "; ".join(measured.faults) or "money ok"
    return " | ".join([speed, _cpu(measured), _asked(measured), written, noise, verdict])


def short_line(case: Case, outcome: Outcome) -> str:
    """Return what can be said of a server whose inside we do not see."""
    times = f"p50 {outcome.p50:.2f} ms, p99 {outcome.p99:.2f} ms"
    return f"{case.label}: {outcome.rate:.0f} {case.unit}, {times}"


def _cpu(measured: Measured) -> str:
    each = max(1, measured.outcome.complete)
    kinds = (f"{kind} {1000 * spent / each:.3f}" for kind, spent in measured.cpu_s.items())
    return f"CPU s/1k: {', '.join(kinds)}"


def _asked(measured: Measured) -> str:
    each = max(1, measured.outcome.complete)
    counts = {
        "statements": measured.asked["statements"],
        "Redis commands": measured.asked["redis"],
        "commits": measured.written.commits,
    }
    said = [f"{count / each:.3f} {what}" for what, count in counts.items()]
    said.append(f"{measured.written.wal_bytes / each:.0f} WAL bytes")
    return f"per request: {', '.join(said)}"
