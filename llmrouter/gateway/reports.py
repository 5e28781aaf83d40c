"""End-of-request reports: a part of the log line, the metrics and the span."""

from __future__ import annotations

import logging
from typing import Any, Final, NamedTuple

from airi_server.kernel import context
from billing.pricing import TokenSource
from billing.settlements import Charged, Settlement
from llmrouter import telemetry
from llmrouter.routing.failover import Failover

logger = logging.getLogger(__name__)
MAX_NAMED: Final = 10
MAX_NAME: Final = 64


class Course(NamedTuple):
    """How a request went, beside what is on its row; `first_byte_s` counts from its arrival."""

    walk: Failover[Any]
    first_byte_s: float | None
    traceparent: str | None


def ended(course: Course, settlement: Settlement, charged: Charged) -> None:
    """Report a request once its row is closed."""
    ticket = settlement.ticket
    usage = settlement.usage
    if usage is not None and usage.source is TokenSource.BOUNDED:
        logger.warning(
            "A usage report is beyond what was asked for",
            extra={"request": str(ticket.id), "upstream": settlement.upstream},
        )
    if logger.isEnabledFor(logging.INFO):
        facts = {
            "user": ticket.user_id,
            "model": ticket.model,
            "stream": ticket.stream,
            "outcome": settlement.outcome,
            "status": settlement.status,
            "attempts": settlement.attempts,
            "duration_ms": settlement.duration_ms,
            "prompt_tokens": usage.prompt if usage else None,
            "completion_tokens": usage.completion if usage else None,
            "flux": charged.charged,
            "unbilled": charged.unbilled,
        }
        if not context.add_to_line(facts):
            logger.info("Chat completion ended", extra=facts)
    if telemetry.is_enabled():
        telemetry.request_ended(_report(course, settlement, charged))


def _report(course: Course, settlement: Settlement, charged: Charged) -> telemetry.Report:
    ticket, usage = settlement.ticket, settlement.usage
    interrupted = None
    if settlement.outcome != "completed" and course.walk.attempt is not None:
        interrupted = "before_first_chunk" if course.first_byte_s is None else "mid_stream"
    return telemetry.Report(
        model=ticket.model,
        stream=ticket.stream,
        status=settlement.status or 0,
        duration_s=settlement.duration_ms / 1000,
        ttft_s=course.first_byte_s,
        flux=charged.charged,
        unbilled=charged.unbilled,
        input_tokens=usage.prompt if usage else None,
        output_tokens=usage.completion if usage else None,
        interrupted=interrupted,
        usage_source=usage.source if usage else "",
        attempt=course.walk.attempt,
        depth=len(course.walk.failures),
        traceparent=course.traceparent,
    )


def named(dropped: tuple[str, ...]) -> str:
    """Return field names as a header can carry them: the first ten, and how many more."""
    shown = [
        "".join(c if "!" <= c <= "~" and c != "," else "?" for c in name[:MAX_NAME])
        for name in dropped[:MAX_NAMED]
    ]
    more = len(dropped) - len(shown)
    return ", ".join([*shown, f"+{more}"] if more else shown)
