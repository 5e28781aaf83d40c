"""A seed decides what goes wrong and when."""

from __future__ import annotations

from tests.chaos.faults import OF_MACHINES, schedule


def test_the_same_seed_gives_the_same_schedule_and_another_another():
    assert schedule(1, 60) == schedule(1, 60)
    assert schedule(1, 60) != schedule(2, 60)


def test_every_kind_comes_before_any_comes_again():
    kinds = [fault.kind for fault in schedule(3, 60)]

    assert set(kinds[: len(OF_MACHINES)]) == set(OF_MACHINES)


def test_the_end_is_left_alone():
    assert all(2 <= fault.at_s < 28 for fault in schedule(4, 30))
