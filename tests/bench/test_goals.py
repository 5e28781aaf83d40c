"""The arithmetic behind the verdicts of the benchmark."""

from __future__ import annotations

import time
from array import array

import pytest

from tests.bench import stamps
from tests.bench.goals import Change, Findings, Goal, percentile, table


class TestChange:
    def test_is_the_median_of_the_pairs_so_that_one_disturbed_pair_decides_nothing(self):
        change = Change.between([1.0, 1.0, 1.0], [1.04, 9.0, 1.02])

        assert change.middle == pytest.approx(1.04)
        assert (change.least, change.most) == (1.02, 9.0)
        assert change.percent == pytest.approx(4.0)

    def test_compares_what_was_measured_side_by_side_and_not_the_sums(self):
        slow_then_fast = Change.between([10.0, 1.0], [10.0, 1.0])

        assert slow_then_fast.middle == 1.0

    @pytest.mark.parametrize(("base", "other"), [([], []), ([0.0], [1.0]), ([1.0], [1.0, 2.0])])
    def test_refuses_what_cannot_be_compared(self, base, other):
        with pytest.raises(ValueError, match=r"compare|zip"):
            Change.between(base, other)


class TestPercentile:
    def test_is_a_value_that_was_measured(self):
        values = [float(number) for number in range(100, 0, -1)]

        found = [percentile(values, share) for share in (0.5, 0.99, 1.0)]

        assert found == [51.0, 100.0, 100.0]

    def test_of_nothing_is_nothing(self):
        assert percentile([], 0.5) == 0.0


class TestGoal:
    def test_says_when_the_machine_cannot_tell(self):
        said = table([Goal("a", "1", True), Goal("b", "2", False), Goal("c", "3", None)])

        assert [row.split(" | ")[-1] for row in said.splitlines()[2:]] == [
            "held |",
            "MISSED |",
            "not judged |",
        ]

    def test_passes_from_process_to_process(self):
        found = Findings([Goal("a", "1", None)], ["a request is open (1)"])

        assert Findings.of_json(found.as_json()) == found


class TestDelays:
    @pytest.mark.parametrize("cut", [1, 7, 15, 40, 60])
    def test_are_found_wherever_the_stream_is_cut(self, cut):
        chunks = b"".join(stamps.stamped(b'data: {"x":"%b"}\n\n' % stamps.PLACE) for _ in range(3))
        first, later = array("d"), array("d")
        delays = stamps.Delays()

        delays.read(chunks[:cut], first, later)
        delays.read(chunks[cut:], first, later)

        assert (len(first), len(later)) == (1, 2)

    def test_are_the_time_from_the_write_to_the_read(self):
        first, later = array("d"), array("d")
        chunk = stamps.stamped(stamps.PLACE)

        time.sleep(0.01)
        stamps.Delays().read(chunk, first, later)

        assert 0.01 <= first[0] < 60
