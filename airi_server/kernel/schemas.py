"""Shapes every router shares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from ninja import Schema
from pydantic import PlainSerializer


def _iso(instant: datetime) -> str:
    text = instant.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


Instant = Annotated[datetime, PlainSerializer(_iso, return_type=str)]
"""A time as every client reads it: ISO 8601 in UTC, with milliseconds and a Z."""


class ErrorBody(Schema):
    """A refusal: a code for programs, a sentence for people, and sometimes where and why."""

    error: str
    message: str
    details: Any = None
