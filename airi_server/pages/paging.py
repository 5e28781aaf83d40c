"""Keyset pagination: a list opens at once, however many rows there are.

A list is read along one index, a page at a time, from where the page before has ended. What no
index answers is compared row by row, on no more than `SLICE` rows for each page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils.functional import cached_property

if TYPE_CHECKING:
    BasePaginator = Paginator[Any]
else:
    BasePaginator = Paginator

MAX_LISTED: Final = 10_000
SLICE: Final = 100_000
"""Rows one page looks through at most: some 4,000 pages of the table, well under a second."""
SCATTERED: Final = 10_000
"""The same where each row may lie on a page of its own, as those of one user do."""
NOTHING: Final = Q()


class BoundedPaginator(BasePaginator):
    """Counts no further than anybody pages, so that a list of millions opens at once."""

    @cached_property
    def count(self) -> int:
        newest: QuerySet[Any] = self.object_list[:MAX_LISTED]  # type: ignore[assignment]
        return newest.count()


@dataclass(frozen=True, slots=True)
class KeysetPage:
    """Some rows of a line, and the keys from which it goes on in either direction.

    `looked_to` is the key of the last row that was looked at, if the page ended there rather than
    because it was full: there is more behind it, looked at by nobody yet.
    """

    rows: Sequence[Any]
    onward: Any = None
    back: Any = None
    looked_to: Any = None


@dataclass(frozen=True, slots=True)
class KeysetQuery:
    """Rows in the order of one index.

    Attributes:
        rows: Restricted by nothing but what that index answers.
        key: The field they are ordered by; unique among them, and never null.
        descending: Which way is onward.
        narrowed: What is compared row by row.
        within: A column the index begins with, if `value` is what all rows have there. It becomes
            a part of the order: a planner that believes in luck would walk the primary key.
        slice: How many rows a page looks through.
    """

    rows: QuerySet[Any, Any]
    key: str
    descending: bool = True
    filtered: Q = field(default_factory=Q)
    within: str = ""
    value: Any = None
    slice: int = SLICE

    def page(self, size: int, *, after: Any = None) -> KeysetPage:
        """Return the next rows behind the one with the key `after`, or the first."""
        rows, ended_at, is_slice = self._stretch(size, after, descending=self.descending)
        back = after if not rows else self._key(rows[0])
        return KeysetPage(
            rows, ended_at, None if after is None else back, ended_at if is_slice else None
        )

    def page_back(self, size: int, *, before: Any) -> KeysetPage:
        """Return the rows that lie in front of the one with the key `before`."""
        rows, ended_at, is_slice = self._stretch(size, before, descending=not self.descending)
        rows.reverse()
        onward = before if not rows else self._key(rows[-1])
        return KeysetPage(rows, onward, ended_at, ended_at if is_slice else None)

    def _stretch(self, size: int, cursor: Any, *, descending: bool) -> tuple[list[Any], Any, bool]:
        """Return rows, the key to go on from if there may be more, and whether a slice ended."""
        ahead, behind = ("lt", "gte") if descending else ("gt", "lte")
        rows = self.rows
        if cursor is not None:
            rows = rows.filter(self._beyond(ahead, cursor))
        if self.within:
            # A range, not an equation: that would take the column out of the order again.
            both = {f"{self.within}__gte": self.value, f"{self.within}__lte": self.value}
            rows = rows.filter(**both)
        rows = rows.order_by(*self._order(descending=descending))
        edge = self._edge(rows)
        if edge is not None:
            rows = rows.filter(self._beyond(behind, edge))
        found = list(rows.filter(self.filtered)[: size + 1])
        if len(found) > size:
            return found[:size], self._key(found[size - 1]), False
        return found, edge, edge is not None

    def _beyond(self, comparison: str, key: Any) -> Q:
        """Return the condition of lying on one side of the row with this key."""
        return Q(**{f"{self.key}__{comparison}": key})

    def _order(self, *, descending: bool) -> list[str]:
        """Return the order of the index, or its reverse."""
        is_reverse = descending != self.descending
        shared = [f"-{self.within}" if is_reverse else self.within] if self.within else []
        return [*shared, f"-{self.key}" if descending else self.key]

    def _edge(self, rows: QuerySet[Any, Any]) -> Any:
        """Return the key of the last row of the slice, if there are rows behind it."""
        if self.filtered == NOTHING:
            return None
        keys = list(rows.values_list(self.key, flat=True)[self.slice - 1 : self.slice + 1])
        return keys[0] if len(keys) > 1 else None

    def _key(self, row: Any) -> Any:
        return getattr(row, self.key)


@dataclass(frozen=True)
class DatedKeysetQuery(KeysetQuery):
    """Rows in the order of a time, where the key says nothing about age; it only breaks ties.

    Attributes:
        dated: The time, never changed and never null. An index has both, in this order.
    """

    dated: str = "created_at"

    def _beyond(self, comparison: str, key: Any) -> Q:
        at = self.rows.filter(**{self.key: key}).values_list(self.dated, flat=True)
        instant = at.order_by(self.key).first()
        if instant is None:  # no row of this line, so nothing lies beyond it
            return Q(pk__in=[])
        strictly = comparison[:2]
        # The first condition is one that an index can begin at; together they compare the pair.
        later = Q(**{f"{self.dated}__{strictly}": instant})
        beside = Q(**{f"{self.key}__{comparison}": key})
        return Q(**{f"{self.dated}__{strictly}e": instant}) & (later | beside)

    def _order(self, *, descending: bool) -> list[str]:
        *shared, key = super()._order(descending=descending)
        return [*shared, f"-{self.dated}" if descending else self.dated, key]
