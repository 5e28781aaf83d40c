"""What one client knows of one chat, by the rules of `docs/websocket.md`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FIELDS = ("senderId", "role", "content", "createdAt", "updatedAt")


@dataclass(frozen=True, slots=True)
class Row:
    """A message, or a tombstone when nothing is `told`; `told` are the values of `FIELDS`."""

    id: str
    seq: int
    told: tuple[Any, ...] | None

    @property
    def content(self) -> str | None:
        return None if self.told is None else str(self.told[FIELDS.index("content")])


class Replica:
    """Rows by id and a cursor: the number up to which everything is known.

    Attributes:
        highest: The highest number of any row that ever came; it survives `forget`.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.cursor = 0
        self.highest = 0

    def take_page(self, page: Mapping[str, Any], *, after: int) -> bool:
        """Apply the page that was asked for `after` a number; return whether there may be more.

        Forgotten since then, the page does not begin where the cursor is: there is more.
        """
        self._apply(page)
        if after > self.cursor:
            return True
        has_moved: bool = page["seq"] > self.cursor
        self.cursor = max(self.cursor, page["seq"])
        return has_moved

    def take_push(self, push: Mapping[str, Any]) -> bool:
        """Apply a push; return whether something before it is missing."""
        self._apply(push)
        if push["fromSeq"] > self.cursor + 1:
            return True
        self.cursor = max(self.cursor, push["toSeq"])
        return False

    def forget(self) -> None:
        self.rows.clear()
        self.cursor = 0

    def _apply(self, body: Mapping[str, Any]) -> None:
        for row in rows_of(body):
            known = self.rows.get(row.id)
            if known is None or row.seq > known.seq:
                self.rows[row.id] = row
            self.highest = max(self.highest, row.seq)


def rows_of(body: Mapping[str, Any]) -> Iterable[Row]:
    """Yield what a page or a push holds."""
    for message in body["messages"]:
        yield Row(message["id"], message["seq"], tuple(message[name] for name in FIELDS))
    for gone in body.get("deleted", ()):
        yield Row(gone["id"], gone["seq"], None)
