"""What is told of a request that has ended: its part of a log line, the metrics and the span."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from airi_server.kernel import context
from billing.settlements import Charged, Settlement
from llmrouter import telemetry
from llmrouter.routing.attempts import Walk

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Course:
    """How a request went, beside what is on its row; `first_byte_s` counts from its arrival."""

    walk: Walk[Any]
    first_byte_s: float | None
    traceparent: str | None


def ended(course: Course, settlement: Settlement, charged: Charged) -> None:
    """Report a request once its row is closed."""
    ticket = settlement.ticket
    usage = settlement.usage
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
        attempt=course.walk.attempt,
        depth=len(course.walk.failures),
        traceparent=course.traceparent,
    )
