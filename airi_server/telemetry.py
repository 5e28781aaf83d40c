"""OpenTelemetry, set up only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set (contract §12).

opentelemetry-instrumentation-django serves everything but the hot path, which makes one span of
its own for each request, after it has ended, and only if sampled (`llmrouter.telemetry`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

from airi_server.kernel import instance
from chats import telemetry as chats_telemetry
from llmrouter import telemetry as router_telemetry

_shut_down: list[Callable[[], object]] = []


def set_up() -> None:
    """Export metrics and traces of this process. Does nothing without an endpoint."""
    endpoint = settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip("/")
    if not endpoint or _shut_down:
        return
    headers = _headers(settings.OTEL_EXPORTER_OTLP_HEADERS)
    resource = Resource.create(
        {
            "service.namespace": settings.OTEL_SERVICE_NAMESPACE,
            "service.name": settings.OTEL_SERVICE_NAME,
            "service.version": settings.VERSION,
            "service.instance.id": instance.ID,
            "deployment.environment": settings.ENVIRONMENT,
        }
    )
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{endpoint}/v1/metrics", headers=headers, timeout=10),
        export_interval_millis=settings.OTEL_METRIC_EXPORT_INTERVAL_MS,
        export_timeout_millis=10_000,
    )
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(meters)
    ratio = settings.OTEL_TRACES_SAMPLING_RATIO
    spans = BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces", headers=headers))
    tracers = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
    tracers.add_span_processor(spans)
    trace.set_tracer_provider(tracers)
    # The hot path has drawn its lot by the time it makes a span, so this one keeps them all.
    hot = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_ON))
    hot.add_span_processor(spans)
    router_telemetry.configure(hot.get_tracer("airi.llmrouter"), ratio=ratio)
    chats_telemetry.configure()
    DjangoInstrumentor().instrument(excluded_urls="livez,readyz", request_hook=_without_query)
    _shut_down.extend((meters.shutdown, tracers.shutdown))


def shut_down() -> None:
    """Send what is still to be sent, for at most the exporters' time-outs."""
    while _shut_down:
        _shut_down.pop()()


def _headers(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _without_query(span: trace.Span, _request: Any) -> None:
    """Cut the query off a span's URL: tickets and tokens of sockets come in queries.

    A refused upgrade is plain HTTP, so the instrumentation sees its URL whole.
    """
    attributes = getattr(span, "attributes", None) or {}
    for name in ("http.url", "http.target", "url.full", "url.query"):
        if name in attributes:
            whole = "" if name == "url.query" else str(attributes[name]).partition("?")[0]
            span.set_attribute(name, whole)
