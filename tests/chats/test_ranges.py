"""What was delivered, as ranges, held to a set of numbers."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chats.ranges import MAX_RANGES, Ranges

SPANS = st.tuples(st.booleans(), st.integers(1, 60), st.integers(0, 8))


def missing(ranges, head):
    return [seq for low, high in ranges.missing(head) for seq in range(high, low - 1, -1)]


@given(st.lists(SPANS, max_size=30), st.integers(0, 70))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_missing_is_what_no_range_has(steps, head):
    ranges, seen = Ranges(), set()

    for is_delivered, first, length in steps:
        if is_delivered:
            ranges.add(first, first + length)
            seen |= set(range(first, first + length + 1))
        else:
            ranges.remove(first, first + length)
            seen -= set(range(first, first + length + 1))

    assert ranges.head == max(seen, default=0)
    assert ranges.has(5, 9) == ({5, 6, 7, 8, 9} <= seen)
    assert missing(ranges, head) == [seq for seq in range(head, 0, -1) if seq not in seen]


def test_only_so_many_are_kept_and_the_newest_of_them():
    ranges = Ranges()

    for seq in range(1, 10_000, 2):
        ranges.add(seq, seq)

    assert len(ranges._ranges) == MAX_RANGES
    assert next(ranges.missing(10_000)) == (10_000, 10_000)
    assert 9_999 not in missing(ranges, 10_000)
