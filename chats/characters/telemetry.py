"""What is counted about characters, by the names of the contract (§12)."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics

_meter: Final = metrics.get_meter("airi.chats")
CREATED: Final = _meter.create_counter("character.created")
DELETED: Final = _meter.create_counter("character.deleted")
ENGAGEMENT: Final = _meter.create_counter("character.engagement")
