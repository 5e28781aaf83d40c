"""What failures of one cost others, and what an outage costs: traffic of minutes, by seeds.

`HEALTH_WORLDS=300` plays so many random worlds instead of those that fit beside other tests.
"""

from __future__ import annotations

import os

import pytest

from tests.llmrouter.scenarios import SCENARIOS, random_world

WORLDS = int(os.environ.get("HEALTH_WORLDS", "24"))
PARTS = 4


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_costs_no_more_than(scenario):
    seen = scenario.run(seed=1)

    assert seen.asked > scenario.seconds / 100
    assert seen.failed_percent <= scenario.failed
    assert scenario.wasted is None or seen.wasted <= scenario.wasted


@pytest.mark.parametrize("part", range(PARTS))
def test_one_caller_never_makes_another_fail(part):
    """Whatever it provokes, how often, over how many instances, with or without Redis."""
    failed = {seed: random_world(seed).failed for seed in range(part, WORLDS, PARTS)}

    assert {seed: count for seed, count in failed.items() if count} == {}
