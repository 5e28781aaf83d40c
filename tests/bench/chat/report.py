"""How a case is told: one line each, and at the end which goals hold and which do not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.chat.cases import Idle, Measured, Pull


@dataclass(frozen=True, slots=True)
class Goal:
    """What was wanted, what came, and whether that is enough."""

    wanted: str
    came: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'MISSED':<7} {self.wanted}: {self.came}"


def line(measured: Measured) -> str:
    case, outcome = measured.case, measured.outcome
    seconds = max(outcome.seconds, 0.001)
    pace = f"{case.per_second:.0f}/s" if case.per_second else f"{case.senders}x{case.window} open"
    who = f"{case.name} ({case.receivers} receivers, {case.senders} senders, {pace})"
    rates = [
        f"{outcome.messages / seconds:.0f} messages/s",
        f"{outcome.deliveries / seconds:.0f} deliveries/s",
        f"{outcome.frames / seconds:.0f} frames/s",
    ]
    noise = f"others {measured.others_s / seconds:.2f} of {os.cpu_count()}"
    server = 1000 * measured.cpu_s["server"]
    costs = [
        f"deliveries {_each(server, outcome.deliveries):.4f}",
        f"sends {_each(server, outcome.messages):.2f}",
    ]
    parts = [
        f"{who}: {', '.join(rates)}",
        f"push {_times(outcome.push_ms)}",
        f"send {_times(outcome.send_ms)}",
        f"cores: {_cores(measured.cpu_s, seconds)}, {noise}, pace {measured.pace_ms:.1f} ms",
        f"server CPU s/1k: {', '.join(costs)}",
        f"{_each(measured.statements, outcome.messages):.2f} statements a send",
        "; ".join(outcome.faults) or "every count exact",
    ]
    return " | ".join(parts)


def idle_line(idle: Idle) -> str:
    a_socket = 1024 * (idle.full_mb - idle.empty_mb) / max(1, idle.sockets)
    return (
        f"{idle.sockets} idle sockets for {idle.seconds:.0f} s: {idle.full_mb} MB resident "
        f"(from {idle.empty_mb}, {a_socket:.0f} kB a socket) | opening took "
        f"{1000 * idle.opening_cpu_s / max(1, idle.sockets):.2f} CPU ms each | staying costs "
        f"{_cores(idle.cpu_s, idle.seconds, digits=4)} cores | {idle.pings} pings answered, "
        f"{idle.lost} lost"
    )


def pull_line(pull: Pull) -> str:
    return (
        f"pull of 500 from a chat of {pull.messages:,}: p50 {pull.p50_ms:.2f} ms, "
        f"worst place {pull.worst_ms:.2f} ms of database time"
    )


def goals(flood: Measured, paced: Measured, one: Measured, idle: Idle, pull: Pull) -> list[Goal]:
    seconds = max(flood.outcome.seconds, 0.001)
    sent, delivered = flood.outcome.messages / seconds, flood.outcome.deliveries / seconds
    statements = _each(one.statements, one.outcome.messages)
    late = paced.outcome.push_ms[1]
    return [
        Goal("at least 400 messages/s sent", f"{sent:.0f}", sent >= 400),
        Goal("at least 20,000 deliveries/s", f"{delivered:,.0f}", delivered >= 20_000),
        Goal("p95 of a push under 50 ms at 50 messages/s", f"{late:.1f} ms", late < 50),
        Goal("at most 3 round trips a send", f"{statements:.2f}", statements <= 3.005),
        Goal(
            "2,000 idle sockets under 300 MB",
            f"{idle.full_mb} MB with {idle.sockets}, {idle.lost} lost",
            idle.full_mb < 300 and idle.sockets >= 2_000 and not idle.lost,
        ),
        Goal(
            "500 of a million under 10 ms",
            f"worst place {pull.worst_ms:.2f} ms of {pull.messages:,}",
            pull.worst_ms < 10 and pull.messages >= 1_000_000,
        ),
    ]


def _times(found: list[float]) -> str:
    return "p50 {:.1f}, p95 {:.1f}, p99 {:.1f} ms".format(*found)


def _cores(cpu_s: Mapping[str, float], seconds: float, *, digits: int = 2) -> str:
    kinds = ((kind, spent) for kind, spent in cpu_s.items() if kind != "upstream")
    return ", ".join(f"{kind} {spent / seconds:.{digits}f}" for kind, spent in kinds)


def _each(amount: float, count: int) -> float:
    return amount / max(1, count)
