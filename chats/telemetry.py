"""What chats report: sockets by the names of the contract (§7.4, §16.7), refusals by our own.

Free when nothing is exported: `configure` is called once, by the composition, when an OTLP endpoint
is set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

_meter: Final = metrics.get_meter("airi.chats")

MESSAGES: Final = _meter.create_counter("chat.messages")
RECEIVED: Final = _meter.create_counter("ws.messages.received")
SENT: Final = _meter.create_counter("ws.messages.sent")
_COUNTERS: Final = (MESSAGES, RECEIVED, SENT)
SOCKETS_REFUSED: Final = _meter.create_counter("airi.chat.sockets.refused")
ADDITIONS_REFUSED: Final = _meter.create_counter("airi.chat.additions.refused")


@dataclass(slots=True)
class OpenCounts:
    """What is open in this process now."""

    connections: int = 0
    users: int = 0


@dataclass(slots=True)
class _Exporting:
    is_on: bool = False


counts: Final = OpenCounts()
_exporting: Final = _Exporting()


def configure() -> None:
    """Start reporting; prime the counters, so that a series exists before its first event."""
    if _exporting.is_on:
        return
    _exporting.is_on = True
    for counter in _COUNTERS:
        counter.add(0)
    for reason in ("key", "user", "waiting"):
        SOCKETS_REFUSED.add(0, {"reason": reason})
    for reason in ("left", "full", "stranger", "minute", "day"):
        ADDITIONS_REFUSED.add(0, {"reason": reason})
    _meter.create_observable_gauge("ws.connections.active", [_connections])
    _meter.create_observable_gauge("ws.users.online", [_users])


def messages_sent(count: int) -> None:
    """Count the messages of one call once, whoever receives them."""
    if _exporting.is_on:
        for counter in _COUNTERS:
            counter.add(count)


def socket_refused(reason: str) -> None:
    """Count a socket that was not let in because there are too many."""
    if _exporting.is_on:
        SOCKETS_REFUSED.add(1, {"reason": reason})


def addition_refused(reason: str) -> None:
    """Count that somebody was not put into a chat."""
    if _exporting.is_on:
        ADDITIONS_REFUSED.add(1, {"reason": reason})


def _connections(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(counts.connections)]


def _users(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(counts.users)]
