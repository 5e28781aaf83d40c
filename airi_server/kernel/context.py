"""Request context: what log lines and errors of one request name, in a context variable."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

request_id: ContextVar[str] = ContextVar("request_id", default="")


@dataclass(slots=True)
class RefusedExchange:
    """A refused request: how it is answered, whose it was, and what for, as far as that is known.

    `has_row`: the request was opened before, and its own row says how it ended. `is_routed`: there
    is such a model.
    """

    status: int = 0
    code: str = ""
    message: str = ""
    user_id: str = ""
    api_key_id: str = ""
    model: str = ""
    is_routed: bool = False
    has_row: bool = False

    def is_of(self, user_id: str, api_key_id: str | None) -> None:
        """Note whose it was."""
        self.user_id, self.api_key_id = user_id, api_key_id or ""


class LogLine:
    """The log line of one HTTP exchange, to which any task of it adds what it knows.

    `request` is its id, as `request_id` is, before it was written.
    """

    __slots__ = ("facts", "is_written", "refused", "request")

    def __init__(self, request: UUID | None = None) -> None:
        self.request = request
        self.facts: dict[str, Any] = {}
        self.is_written = False
        self.refused: RefusedExchange | None = None


line: ContextVar[LogLine | None] = ContextVar("line", default=None)


def add_to_line(facts: Mapping[str, Any]) -> bool:
    """Have the exchange's line say this too; False if there is none, or it has been written."""
    open_line = line.get()
    if open_line is None or open_line.is_written:
        return False
    open_line.facts.update(facts)
    return True


def refused() -> RefusedExchange:
    """Return the note of this exchange's refusal, to be filled in where a part is known.

    Made where something is refused, and nowhere else: an answer costs nothing.
    """
    open_line = line.get()
    if open_line is None:
        return RefusedExchange()
    if open_line.refused is None:
        open_line.refused = RefusedExchange()
    return open_line.refused
