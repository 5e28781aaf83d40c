"""The router's counters and the clock of its limits, for tests that look at them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace

from llmrouter import telemetry
from llmrouter.gateway import limits


class Counted(list[Any]):
    """Stands for a counter: (amount, labels) of everything added."""

    def add(self, amount, labels=None):
        if amount:
            self.append(labels)


@pytest.fixture
def counted(monkeypatch):
    """The router's counters, as if an exporter were configured."""
    names = (
        "FALLBACKS", "UPSTREAM_ERRORS", "KEY_EXHAUSTED", "SAME_STATUS", "DECRYPT_FAILURES",
        "RATE_LIMITED",
    )  # fmt: skip
    counters = {name: Counted() for name in names}
    for name, counter in counters.items():
        monkeypatch.setattr(telemetry, name, counter)
    monkeypatch.setattr(telemetry._exporting, "tracer", trace.NoOpTracer())
    return counters


class Clock:
    """Stands for the module `time` where limits read it.

    A bucket begins at `now`, which is far ahead: Redis drops a lease when its own clock is past it.
    """

    def __init__(self):
        self.now = 4_000_000_020.0

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """No minute ends unless a test says so."""
    made = Clock()
    monkeypatch.setattr(limits, "time", made)
    return made
