"""Group commit: neighbors survive, failures stay with whom they belong to, queues have ends."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from airi_server.kernel import database, group_commit
from airi_server.kernel.group_commit import GroupCommit, Overloaded

pytestmark = pytest.mark.asyncio


class Recorded:
    """A statement that notes its batches and fails as it is told."""

    def __init__(self, *failures, bad=()):
        self.failures = list(failures)
        self.bad = bad
        self.batches = []

    async def __call__(self, lent, members):
        self.batches.append(list(members))
        await database.execute(lent, "SELECT 1", {})
        if self.failures:
            raise self.failures.pop(0)
        if bad := set(members) & set(self.bad):
            raise ValueError(*bad)
        return [member * 10 for member in members]


async def submit_all(run, count):
    commits = GroupCommit(run)
    return await asyncio.gather(
        *(commits.submit(number) for number in range(count)), return_exceptions=True
    )


class TestGroupCommit:
    async def test_runs_what_waits_together_and_answers_each(self, hot):
        run = Recorded()

        assert await submit_all(run, 300) == [number * 10 for number in range(300)]

        assert [len(batch) for batch in run.batches] == [128, 128, 44]

    async def test_a_bad_member_fails_alone(self, hot):
        run = Recorded(bad={3})

        done = await submit_all(run, 6)

        assert isinstance(done[3], ValueError)
        assert [each for each in done if not isinstance(each, ValueError)] == [0, 10, 20, 40, 50]

    @pytest.mark.parametrize("failure", group_commit.ROLLED_BACK)
    async def test_what_was_rolled_back_is_tried_again(self, hot, failure):
        run = Recorded(failure(), failure())

        assert await submit_all(run, 3) == [0, 10, 20]
        assert len(run.batches) == 3

    async def test_a_third_deadlock_is_tried_member_by_member(self, hot):
        run = Recorded(*(psycopg.errors.DeadlockDetected() for _ in range(3)))

        assert await submit_all(run, 3) == [0, 10, 20]
        assert run.batches[3:] == [[0], [1], [2]]

    async def test_failing_alone_has_an_end(self, hot, monkeypatch):
        monkeypatch.setattr(group_commit, "ALONE_S", 0)
        run = Recorded(psycopg.errors.LockNotAvailable())

        done = await submit_all(run, 3)

        assert {type(each) for each in done} == {psycopg.errors.LockNotAvailable}

    async def test_a_full_queue_refuses(self, hot, monkeypatch):
        monkeypatch.setattr(group_commit, "MAX_WAITING", 5)

        done = await submit_all(Recorded(), 8)

        assert done[:5] == [0, 10, 20, 30, 40]
        assert {type(each) for each in done[5:]} == {Overloaded}
        assert done[5].retry_after_s == 1

    async def test_who_no_longer_waits_does_not_disturb_the_others(self, hot):
        commits = GroupCommit(Recorded())
        waiting = [asyncio.ensure_future(commits.submit(number)) for number in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()

        done = await asyncio.gather(*waiting, return_exceptions=True)

        assert done[0::2] == [0, 20]
        assert isinstance(done[1], asyncio.CancelledError)

    async def test_a_database_that_is_away_fails_everybody_and_the_next_try_works(
        self, hot, monkeypatch
    ):
        run = Recorded()
        commits = GroupCommit(run)
        with monkeypatch.context() as broken:
            broken.setattr(database, "connection", _nowhere)
            waiting = [commits.submit(number) for number in range(3)]
            done = await asyncio.gather(*waiting, return_exceptions=True)

        assert {type(each) for each in done} == {psycopg.OperationalError}
        assert await commits.submit(4) == 40


def _nowhere():
    raise psycopg.OperationalError
