"""A paid request that is told to end soon: which reason stays, and how long it still has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmrouter.completions.completion import Completion
from llmrouter.gateway.paid import DRAIN_S
from llmrouter.routing.failover import Failover

pytestmark = pytest.mark.asyncio


@pytest.fixture
def paid():
    """A request that has not begun: nothing of it is asked but its time."""
    names = ("order", "route", "plan", "ticket", "spending", "admission", "bounds", "traceparent")
    nothing: dict[str, Any] = dict.fromkeys(names)
    return Completion(**nothing, walk=Failover("caller", str), began=0.0)


def left_s(timer):
    return timer.when() - asyncio.get_running_loop().time()


class TestHurry:
    async def test_keeps_its_first_reason_but_for_the_end_of_the_server(self, paid):
        paid.finish_soon("client_gone", within_s=1)
        paid.finish_soon("deadline", within_s=1)
        assert paid.finishing == "client_gone"

        paid.finish_soon("shutdown", within_s=1)
        paid.finish_soon("client_gone", within_s=1)
        assert paid.finishing == "shutdown"

    async def test_makes_no_further_call(self, paid):
        paid.finish_soon("client_gone", within_s=1)

        assert paid.walk.stopped

    async def test_brings_a_running_deadline_forward_and_never_back(self, paid):
        async with paid.deadline(600) as timer:
            paid.finish_soon("client_gone", within_s=60)
            assert 0 < left_s(timer) <= 60

            paid.finish_soon("client_gone", within_s=300)
            assert left_s(timer) <= 60

    async def test_is_too_late_for_a_deadline_that_was_left(self, paid):
        async with paid.deadline(600):
            pass

        paid.finish_soon("client_gone", within_s=1)

        assert paid.finishing == "client_gone"


class TestDeadline:
    async def test_is_what_is_asked_for_while_nobody_hurries(self, paid):
        async with paid.deadline(600) as timer:
            assert DRAIN_S < left_s(timer) <= 600

    @pytest.mark.parametrize(
        ("reason", "asked_s", "most_s"),
        [("client_gone", 600, DRAIN_S), ("client_gone", DRAIN_S / 2, DRAIN_S / 2)],
    )
    async def test_after_the_client_left_is_short(self, paid, reason, asked_s, most_s):
        paid.finish_soon(reason, within_s=DRAIN_S)

        async with paid.deadline(asked_s) as timer:
            assert most_s / 2 < left_s(timer) <= most_s

    async def test_after_the_server_was_told_to_end_is_over(self, paid):
        paid.finish_soon("shutdown", within_s=0)

        with pytest.raises(TimeoutError):
            async with paid.deadline(600):
                await asyncio.sleep(60)
