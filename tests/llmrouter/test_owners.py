"""Tasks of the process: kept until they end, waited for on shutdown, hurried, and waited for."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
import pytest_asyncio

from llmrouter.gateway import tasks

pytestmark = pytest.mark.asyncio


class Work:
    """Something that ends by itself after `lasts_s`, or `hurried_s` after it was hurried."""

    def __init__(self, lasts_s, hurried_s=0.0):
        self.lasts_s = lasts_s
        self.hurried_s = hurried_s
        self.told = []
        self.ended = False
        self._hurried = asyncio.Event()

    def finish_soon(self, reason, *, within_s):
        self.told.append((reason, within_s))
        self._hurried.set()

    async def run(self):
        try:
            async with asyncio.timeout(self.lasts_s):
                await self._hurried.wait()
            await asyncio.sleep(self.hurried_s)
        except TimeoutError:
            pass
        self.ended = True


@pytest_asyncio.fixture
async def reported():
    """What nobody has taken care of in this loop."""
    found = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, facts: found.append(facts))
    return found


class TestOwn:
    async def test_keeps_what_runs_until_it_ends(self):
        work = Work(0.05)

        task = tasks.own(work.run(), of=work)
        assert (tasks.count(), tasks._running) == (1, {work})
        await task
        await asyncio.sleep(0)

        assert (tasks.count(), tasks._running) == (0, set())

    async def test_hands_a_failure_to_whoever_waits(self):
        async def fail():
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await tasks.own(fail())

    async def test_reports_no_failure_as_lost_that_nobody_waits_for(self, reported):
        async def fail():
            raise ZeroDivisionError

        task = tasks.own(fail())
        await asyncio.wait({task})
        await asyncio.sleep(0)
        del task
        gc.collect()

        assert reported == []

    async def test_takes_a_cancelled_task_for_ended(self, reported):
        task = tasks.own(asyncio.sleep(60))
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)

        assert (reported, tasks.count()) == ([], 0)


class TestDrain:
    async def test_waits_for_what_ends_in_time_and_hurries_nobody(self):
        works = Work(0.02), Work(0.1)
        for work in works:
            tasks.own(work.run(), of=work)

        await tasks.drain(30)

        assert [(work.ended, work.told) for work in works] == [(True, [])] * 2

    async def test_waits_also_for_what_begins_meanwhile(self):
        late = Work(0.05)

        async def begin():
            await asyncio.sleep(0.02)
            tasks.own(late.run(), of=late)

        tasks.own(begin())

        await tasks.drain(30)

        assert (late.ended, late.told) == (True, [])

    async def test_hurries_what_takes_longer_and_waits_for_its_settlement(self):
        slow, settling = Work(60, hurried_s=0.1), Work(60, hurried_s=0.2)
        for work in (slow, settling):
            tasks.own(work.run(), of=work)

        await tasks.drain(0.02)

        assert [work.told for work in (slow, settling)] == [[("shutdown", 0)]] * 2
        assert slow.ended
        assert settling.ended

    async def test_gives_up_on_what_does_not_end_and_says_so(self, monkeypatch, caplog):
        monkeypatch.setattr(tasks, "LAST_SETTLEMENTS_S", 0.05)
        stuck = Work(60, hurried_s=60)
        task = tasks.own(stuck.run(), of=stuck)

        await tasks.drain(0.02)

        assert (stuck.told, stuck.ended) == ([("shutdown", 0)], False)
        (line,) = (each for each in caplog.records if each.levelno == logging.ERROR)
        assert vars(line)["open"] == 1
        task.cancel()
        await asyncio.wait({task})
