"""A run as text; what was violated with everything that is known of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.paid.record import Call, Record
from tests.chaos.paid.witness import Truth

_SHOWN: Final = 40
_TRAILS: Final = 8
_CALL: Final = re.compile(r"(?:call|probe)-\d+")
_OF_CHAT: Final = ("messages sent", "messages acknowledged", "edits", "deletions", "connections")


@dataclass(slots=True)
class Report:
    """What a run has come to; `talk` counts what people did in the chats."""

    record: Record
    truth: Truth
    violations: list[str]
    told_after_s: float | None
    talk: Counter[str]


def told(report: Report, *, seed: int) -> str:
    """Return the report as text; the last line has the number of violations."""
    record = report.record
    when = "never" if report.told_after_s is None else f"after {report.told_after_s:.1f} s"
    lines = [
        f"seed {seed}: {len(record.happened)} faults: "
        + _listed(Counter(each.kind.value for each in record.happened)),
        f"completions: {_listed(_starting(record, 'answers', 'streams', 'calls'))}",
        f"provider: {_listed(_starting(record, 'provider'))}",
        f"requests: {_listed(_outcomes(report.truth))}",
        f"grants: {_listed(_grants(record))}",
        f"chat: {_listed(Counter({what: report.talk[what] for what in _OF_CHAT}))}",
        f"besides: {_listed(_starting(record, 'sockets', 'routes', 'faults'))}",
        f"everybody in the chats had been told of everything {when}",
        *(f"VIOLATION {line}" for line in report.violations[:_SHOWN]),
        *(_trails(report) if report.violations else ()),
        f"{len(report.violations)} violations",
    ]
    return "\n".join(lines)


def _trails(report: Report) -> Iterator[str]:
    """Tell what happened when, and all that is known of the first violated calls."""
    record = report.record
    for each in sorted(record.happened, key=lambda fault: fault.began):
        span = f"{each.began - record.began:.1f}-{each.ended - record.began:.1f} s"
        yield f"{span}: {each.kind.value}"
    found = (match[0] for line in report.violations if (match := _CALL.match(line)))
    for call_id in list(dict.fromkeys(found))[:_TRAILS]:
        yield from _trail(record.calls[call_id], report)


def _trail(call: Call, report: Report) -> Iterator[str]:
    """Tell of one call: its tries, its attempts and its rows."""
    record = report.record
    for told in call.told:
        what = "whole" if told.is_whole else "not whole"
        span = f"{told.began - record.began:.1f}-{told.ended - record.began:.1f} s"
        yield (
            f"{call.id}: asked at {span}, {told.status} {what}, {told.frames} frames, "
            f"{told.request_id} {told.code or ''}"
        )
    for attempt in record.attempts:
        if attempt.call == call.id:
            yield (
                f"{call.id}: attempt {attempt.number} at {attempt.place} at "
                f"{attempt.began - record.began:.1f} s, {attempt.play}, {attempt.frames} frames"
            )
    for row in report.truth.rows.values():
        if (row.user_id, row.prompt_estimate) == (call.person.user_id, call.estimate):
            yield f"{call.id}: {row}"


def _outcomes(truth: Truth) -> Counter[str]:
    """Count rows by how they ended and where their usage came from."""
    return Counter(f"{r.state} {r.outcome} ({r.usage_source})" for r in truth.rows.values())


def _grants(record: Record) -> Counter[str]:
    counts = _starting(record, "grants")
    counts["grants sent"] = len(record.orders)
    counts["credits ordered"] = sum(len(order.user_ids) for order in record.orders)
    counts["credits acknowledged"] = sum(len(order.acknowledged) for order in record.orders)
    return counts


def _starting(record: Record, *names: str) -> Counter[str]:
    found = Counter[str]()
    for what, count in record.counts.items():
        if what.split()[0] in names:
            found[what.removeprefix("provider ")] += count
    return found


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
