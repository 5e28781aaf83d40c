"""A set of numbers as few ranges: what of a chat has been delivered, or seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_RANGES: Final = 64

Range = tuple[int, int]


class Ranges:
    """Disjoint ranges, ascending, both ends included.

    Forgets the lowest beyond `MAX_RANGES`: what was delivered twice does no harm.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[Range] = []

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def add(self, first: int, last: int) -> None:
        ranges = self._ranges
        if ranges and ranges[-1][1] + 1 == first:  # the next message of a chat
            ranges[-1] = (ranges[-1][0], last)
            return
        apart = [r for r in ranges if r[1] < first - 1 or r[0] > last + 1]
        touching = [r for r in ranges if r[1] >= first - 1 and r[0] <= last + 1]
        low = min([first, *(r[0] for r in touching)])
        high = max([last, *(r[1] for r in touching)])
        self._ranges = sorted([*apart, (low, high)])[-MAX_RANGES:]

    @property
    def head(self) -> int:
        return self._ranges[-1][1] if self._ranges else 0

    def has(self, first: int, last: int) -> bool:
        """Return whether all of a range is in the set."""
        return any(low <= first and last <= high for low, high in reversed(self._ranges))

    def remove(self, first: int, last: int) -> None:
        kept = []
        for low, high in self._ranges:
            if low < first:
                kept.append((low, min(high, first - 1)))
            if high > last:
                kept.append((max(low, last + 1), high))
        self._ranges = sorted(set(kept))

    def missing(self, head: int) -> Iterator[Range]:
        """Yield the ranges from 1 to `head` that are not in the set, the highest first."""
        upper = head
        for low, high in reversed(self._ranges):
            if high < upper:
                yield high + 1, upper
            upper = min(upper, low - 1)
        if upper >= 1:
            yield 1, upper
