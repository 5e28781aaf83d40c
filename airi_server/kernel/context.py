"""What every log line and error of one request can name, carried without being passed."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")


class Line:
    """The log line of one HTTP exchange, to which any task of it adds what it knows."""

    __slots__ = ("facts", "is_written")

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.is_written = False


line: ContextVar[Line | None] = ContextVar("line", default=None)


def add_to_line(facts: Mapping[str, Any]) -> bool:
    """Have the exchange's line say this too; False if there is none, or it has been written."""
    open_line = line.get()
    if open_line is None or open_line.is_written:
        return False
    open_line.facts.update(facts)
    return True
