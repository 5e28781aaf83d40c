"""Alarms ring once, in time and in order; and deadlines end what is inside, as asyncio's do."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from functools import partial

import pytest

from airi_server.kernel import alarms
from airi_server.kernel.deadlines import Deadline

pytestmark = pytest.mark.asyncio
named: ContextVar[str] = ContextVar("named", default="")


def now() -> float:
    return asyncio.get_running_loop().time()


class Bell:
    """Notes who has rung, and wakes whoever waits for the last of them."""

    def __init__(self, expected: int) -> None:
        self.rung: list[str] = []
        self._expected = expected
        self._all = asyncio.Event()

    def ring(self, who: str) -> None:
        self.rung.append(who)
        if len(self.rung) == self._expected:
            self._all.set()

    async def wait(self) -> list[str]:
        async with asyncio.timeout(5):
            await self._all.wait()
        return self.rung


class TestAlarms:
    async def test_ring_in_the_order_in_which_they_are_due(self):
        bell = Bell(3)
        alarms.after(0.06, partial(bell.ring, "second"))
        alarms.after(0.02, partial(bell.ring, "first"))
        alarms.after(0.1, partial(bell.ring, "third"))

        assert await bell.wait() == ["first", "second", "third"]

    async def test_one_whose_time_has_passed_rings_at_once(self):
        bell = Bell(1)
        alarms.at(now() - 1, partial(bell.ring, "late"))

        assert await bell.wait() == ["late"]

    async def test_one_that_was_canceled_does_not_ring(self):
        bell = Bell(1)
        alarms.after(0.01, partial(bell.ring, "canceled")).cancel()
        alarms.after(0.05, partial(bell.ring, "other"))

        assert await bell.wait() == ["other"]

    async def test_nor_one_that_another_cancels_as_both_are_due(self):
        bell = Bell(2)
        due = now() + 0.02

        def ring_first() -> None:
            bell.ring("first")
            second.cancel()

        alarms.at(due - 0.005, ring_first)
        second = alarms.at(due, partial(bell.ring, "second"))
        alarms.after(0.06, partial(bell.ring, "last"))

        assert await bell.wait() == ["first", "last"]

    async def test_one_that_was_moved_rings_then(self):
        bell = Bell(3)
        later = alarms.after(0.01, partial(bell.ring, "moved back"))
        sooner = alarms.after(60, partial(bell.ring, "moved forward"))
        alarms.after(0.05, partial(bell.ring, "between"))
        later.move(now() + 0.1)
        sooner.move(now() + 0.02)

        assert await bell.wait() == ["moved forward", "between", "moved back"]

    async def test_one_that_fails_keeps_none_from_ringing(self):
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, facts: told.append(facts))
        bell = Bell(1)
        due = now() + 0.01

        def fail() -> None:
            raise ZeroDivisionError

        alarms.at(due, fail)
        alarms.at(due + 0.001, partial(bell.ring, "other"))

        assert await bell.wait() == ["other"]
        assert isinstance(told[0]["exception"], ZeroDivisionError)

    async def test_rings_in_the_context_it_was_set_in(self):
        bell = Bell(2)

        async def set_one(name: str) -> None:
            named.set(name)
            alarms.after(0.01, lambda: bell.ring(named.get()))

        await asyncio.gather(set_one("a"), set_one("b"))

        assert sorted(await bell.wait()) == ["a", "b"]

    async def test_what_has_ended_is_kept_by_nobody(self):
        clock = alarms._clocks.get()
        before = len(clock.alarms)
        for _ in range(100):
            alarms.after(600, lambda: None).cancel()

        assert len(clock.alarms) == before


class TestDeadlines:
    async def test_ends_what_takes_too_long(self):
        began = now()
        with pytest.raises(TimeoutError):
            async with Deadline(0.02):
                await asyncio.sleep(5)

        assert now() - began < 2

    async def test_leaves_what_ends_in_time(self):
        async with Deadline(5) as deadline:
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError):
            deadline.reschedule(now())

    async def test_one_that_has_passed_ends_the_next_wait(self):
        with pytest.raises(TimeoutError):
            async with Deadline(-1):
                await asyncio.sleep(5)

    async def test_can_be_moved_both_ways(self):
        async with Deadline(0.03) as deadline:
            deadline.reschedule(now() + 5)
            await asyncio.sleep(0.1)

        with pytest.raises(TimeoutError):
            async with Deadline(600) as deadline:
                deadline.reschedule(now() + 0.02)
                await asyncio.sleep(5)

    async def test_another_cancellation_stays_one(self):
        async def work() -> None:
            async with Deadline(600):
                await asyncio.sleep(600)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_cancellation_beside_it_wins(self):
        """Who cancels a task whose deadline has just passed is not told of a time-out."""

        async def work() -> None:
            async with Deadline(0.01):
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    task.cancel()
                    raise

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_other_errors_pass(self):
        with pytest.raises(ZeroDivisionError):
            async with Deadline(600):
                raise ZeroDivisionError

    async def test_ones_inside_each_other(self):
        with pytest.raises(TimeoutError):
            async with Deadline(0.02):
                async with Deadline(600):
                    await asyncio.sleep(5)

    async def test_leaves_no_cycle_to_the_collector(self):
        gc.collect()
        gc.disable()
        try:
            for _ in range(50):
                async with Deadline(600):
                    pass
            assert gc.collect() < 50
        finally:
            gc.enable()


async def test_loops_that_have_ended_are_kept_by_none_of_theirs():
    async def call() -> None:
        async with Deadline(60):
            pass

    for _ in range(5):
        await asyncio.to_thread(asyncio.run, call())

    assert len([each for each in alarms._clocks._made if each.is_closed()]) <= 1
