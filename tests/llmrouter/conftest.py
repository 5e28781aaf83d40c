"""The router's counters, for tests that look at them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace

from llmrouter import telemetry


class Counted(list[Any]):
    """Stands for a counter: (amount, labels) of everything added."""

    def add(self, amount, labels=None):
        if amount:
            self.append(labels)


@pytest.fixture
def counted(monkeypatch):
    """The router's counters, as if an exporter were configured."""
    names = ("FALLBACKS", "UPSTREAM_ERRORS", "KEY_EXHAUSTED", "SAME_STATUS", "DECRYPT_FAILURES")
    counters = {name: Counted() for name in names}
    for name, counter in counters.items():
        monkeypatch.setattr(telemetry, name, counter)
    monkeypatch.setattr(telemetry._exporting, "tracer", trace.NoOpTracer())
    return counters
