"""Counters as a collector sees them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from airi_server.kernel.counters import Counter


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def counter(reader):
    provider = MeterProvider(metric_readers=[reader])
    yield Counter(provider.get_meter("airi.test"), "airi.things")
    provider.shutdown()


def exported(reader):
    """Return the points of the only metric: attributes, as pairs, and value."""
    (resource,) = reader.get_metrics_data().resource_metrics
    (metric,) = resource.scope_metrics[0].metrics
    assert metric.data.is_monotonic
    return {tuple(point.attributes.items()): point.value for point in metric.data.data_points}


def test_there_is_a_series_before_the_first_event(counter, reader):
    assert exported(reader) == {(): 0}


def test_every_set_of_labels_has_its_total(counter, reader):
    counter.add(2, {"model": "a", "status": 200})
    counter.add(3, {"model": "a", "status": 200})
    counter.add(5, {"model": "b", "status": 200})
    assert exported(reader)[("model", "a"), ("status", 200)] == 5

    counter.add(1, {"model": "a", "status": 200})

    assert exported(reader) == {
        (): 0,
        (("model", "a"), ("status", 200)): 6,
        (("model", "b"), ("status", 200)): 5,
    }


def test_threads_lose_nothing(counter, reader):
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(lambda: [counter.add(1, {"a": 1}) for _ in range(5_000)])

    assert exported(reader)[(("a", 1),)] == 20_000
