"""What this path reports, by the names of the contract (§12). Free when nothing is exported.

`configure` is called once, by the composition, when an OTLP endpoint is set; until then every
function returns at once. The span of a request is made when it has ended, and only if sampled.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics
from opentelemetry.propagate import extract
from opentelemetry.trace import Status, StatusCode, Tracer, get_current_span

from airi_server.kernel import instance
from airi_server.kernel.counters import Counter

if TYPE_CHECKING:
    from llmrouter.routing.failures import FailureRecord
    from llmrouter.routing.planning import Attempt

_meter: Final = metrics.get_meter("airi.llmrouter")


def _counter(name: str) -> Counter:
    return Counter(_meter, name)


def _seconds(name: str) -> metrics.Histogram:
    return _meter.create_histogram(name, unit="s")


OPERATION_DURATION: Final = _seconds("gen_ai.client.operation.duration")
OPERATION_COUNT: Final = _counter("gen_ai.client.operation.count")
INPUT_TOKENS: Final = _counter("gen_ai.client.token.usage.input")
OUTPUT_TOKENS: Final = _counter("gen_ai.client.token.usage.output")
FIRST_TOKEN: Final = _seconds("gen_ai.client.first_token.duration")
STREAM_INTERRUPTED: Final = _counter("airi.gen_ai.stream.interrupted")
FALLBACKS: Final = _counter("airi.gen_ai.gateway.fallback.count")
UPSTREAM_ERRORS: Final = _counter("airi.gen_ai.gateway.upstream.errors")
KEY_EXHAUSTED: Final = _counter("airi.gen_ai.gateway.key.exhausted")
SAME_STATUS: Final = _counter("airi.gen_ai.gateway.same_status_exhaustion")
DECRYPT_FAILURES: Final = _counter("airi.gen_ai.gateway.decrypt.failures")
CONFIG_RELOAD: Final = _counter("airi.gen_ai.gateway.config.reload")
USAGE_BOUNDED: Final = _counter("airi.gen_ai.gateway.usage.bounded")
EMPTY_ANSWERS: Final = _counter("airi.gen_ai.gateway.answer.empty")
FLUX_CONSUMED: Final = _counter("airi.billing.flux.consumed")
FLUX_UNBILLED: Final = _counter("airi.billing.flux.unbilled")
_ODD: Final = {"bounded": USAGE_BOUNDED, "none": EMPTY_ANSWERS}
"""Where an operator should ask a provider why."""
INSUFFICIENT: Final = _counter("flux.insufficient_balance")
RATE_LIMITED: Final = _counter("airi.rate_limit.blocked")
REFUSED: Final = _counter("airi.gen_ai.gateway.refused")


@dataclass(slots=True)
class _Exporting:
    tracer: Tracer | None = None
    ratio: float = 0.0


_exporting = _Exporting()


def configure(tracer: Tracer, *, ratio: float) -> None:
    """Start reporting."""
    _exporting.tracer = tracer
    _exporting.ratio = ratio


def is_enabled() -> bool:
    return _exporting.tracer is not None


@dataclass(slots=True)
class Report:
    """One ended request, as the metrics and the span see it."""

    model: str
    stream: bool
    status: int
    duration_s: float
    ttft_s: float | None
    flux: int
    unbilled: int
    input_tokens: int | None
    output_tokens: int | None
    interrupted: str | None
    usage_source: str
    attempt: Attempt | None
    depth: int
    traceparent: str | None


def request_ended(report: Report) -> None:
    if _exporting.tracer is None:
        return
    labels: dict[str, str | int] = {
        "gen_ai.request.model": report.model,
        "gen_ai.operation.name": "chat",
        "http.response.status_code": report.status,
    }
    OPERATION_DURATION.record(report.duration_s, labels)
    OPERATION_COUNT.add(1, labels)
    FLUX_CONSUMED.add(report.flux + report.unbilled, labels)
    if report.input_tokens is not None and report.output_tokens is not None:
        INPUT_TOKENS.add(report.input_tokens, labels)
        OUTPUT_TOKENS.add(report.output_tokens, labels)
    if report.ttft_s is not None and report.stream:
        FIRST_TOKEN.record(report.ttft_s, {k: labels[k] for k in list(labels)[:2]})
    if report.interrupted:
        STREAM_INTERRUPTED.add(
            1, {"gen_ai.request.model": report.model, "stage": report.interrupted}
        )
    if report.attempt is not None and report.usage_source in _ODD:
        _ODD[report.usage_source].add(
            1, {"provider": report.attempt.upstream.host, "key_entry_id": report.attempt.key.id}
        )
    if report.unbilled:
        stage = "streaming" if report.stream else "non_streaming"
        FLUX_UNBILLED.add(
            report.unbilled,
            {
                "gen_ai.request.model": report.model,
                "reason": "partial_debit_drained",
                "stage": stage,
            },
        )
        INSUFFICIENT.add(1)
    _span(_exporting.tracer, report)


def _span(tracer: Tracer, report: Report) -> None:
    parent = extract({"traceparent": report.traceparent}) if report.traceparent else None
    asked = parent is not None and get_current_span(parent).get_span_context().trace_flags.sampled
    if not asked and random.random() >= _exporting.ratio:  # noqa: S311  sampling
        return
    ended = time.time_ns()
    span = tracer.start_span(
        "llm.gateway.chat",
        context=parent,
        start_time=ended - round(report.duration_s * 1e9),
        attributes=_attributes(report),
    )
    if report.status >= 500 or report.interrupted:
        span.set_status(Status(StatusCode.ERROR))
    span.end(ended)


def _attributes(report: Report) -> Mapping[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": report.model,
        "airi.gen_ai.stream": report.stream,
        "http.response.status_code": report.status,
        "gen_ai.usage.input_tokens": report.input_tokens or 0,
        "gen_ai.usage.output_tokens": report.output_tokens or 0,
        "airi.billing.flux_consumed": report.flux + report.unbilled,
    }
    if report.interrupted:
        attributes["airi.gen_ai.stream_interrupted"] = True
    if report.attempt:
        attributes |= {
            "airi.gen_ai.gateway.upstream.url": report.attempt.upstream.base_url,
            "airi.gen_ai.gateway.upstream.index": report.attempt.upstream_index,
            "airi.gen_ai.gateway.key.id": report.attempt.key.id,
            "airi.gen_ai.gateway.fallback.depth": report.depth,
        }
    return attributes


def attempt_failed(failure: FailureRecord) -> None:
    if _exporting.tracer is None:
        return
    reason = "timeout" if failure.is_timeout else failure.reason
    FALLBACKS.add(1, {"provider": failure.provider, "from_key": failure.key, "reason": reason})
    if failure.status is not None:
        UPSTREAM_ERRORS.add(1, {"provider": failure.provider, "status_code": failure.status})


def exhausted(tried: Sequence[FailureRecord]) -> None:
    """Count each upstream that nobody answered at, and whether all of them said the same."""
    if _exporting.tracer is None:
        return
    for provider in {(failure.upstream, failure.provider) for failure in tried}:
        KEY_EXHAUSTED.add(1, {"provider": provider[1]})
    statuses = {failure.status for failure in tried}
    if len(statuses) == 1 and None not in statuses:
        for name in {failure.provider for failure in tried}:
            SAME_STATUS.add(1, {"provider": name, "status_code": next(iter(statuses)) or 0})


def decrypt_failed(attempt: Attempt) -> None:
    if _exporting.tracer is not None:
        DECRYPT_FAILURES.add(1, {"provider": attempt.upstream.host, "key_entry_id": attempt.key.id})


def config_reloaded(source: str) -> None:
    if _exporting.tracer is not None:
        CONFIG_RELOAD.add(1, {"source": source, "service_instance_id": instance.ID})


def refused_for_flux() -> None:
    if _exporting.tracer is not None:
        INSUFFICIENT.add(1)


def rate_limited(*, key_type: str, limit: str) -> None:
    if _exporting.tracer is not None:
        RATE_LIMITED.add(1, {"route": "openai.completions", "key_type": key_type, "limit": limit})


def refused(*, model: str, code: str, status: int) -> None:
    """Count a request that was refused before it was opened; `model` is one there is, or empty."""
    if _exporting.tracer is not None:
        REFUSED.add(
            1,
            {"gen_ai.request.model": model, "code": code, "http.response.status_code": status},
        )
