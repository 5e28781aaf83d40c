"""Connections that die under their statement, and locks that are held too long: one effect."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg
import pytest
from django.db import connection

from airi_server.kernel import database, group_commit, instance
from airi_server.kernel.threads import in_thread
from billing import requests
from billing.models import LLMRequestLog
from tests.factories import billing as make
from tests.lab.server import database_url

pytestmark = pytest.mark.asyncio


async def opened(one, wanted=10):
    return await requests.open(one, hold=make.hold(wanted), deadline_s=60)


async def sessions_of_the_hot_path(state):
    """Return the server processes of the hot pool; `state` as `pg_stat_activity` says it."""

    def find():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND state = %s"
                " AND (%s <> 'active' OR wait_event_type = 'Lock')",
                [instance.APPLICATION_NAME, state, state],
            )
            return [pid for (pid,) in cursor.fetchall()]

    async with asyncio.timeout(5):
        while not (found := await in_thread(find)()):
            await asyncio.sleep(0.01)
    return found


def terminate(pids):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [pids])


class Locked:
    """Hold one account's lock in another session until the block ends."""

    def __init__(self, user_id):
        self.user_id = user_id

    def __enter__(self):
        self.session = psycopg.connect(database_url())
        sql = "SELECT FROM user_flux WHERE user_id = %s FOR UPDATE"
        self.session.execute(sql, [self.user_id])

    def __exit__(self, *_):
        self.session.close()


class TestLostConnections:
    async def test_a_batch_killed_while_it_waits_has_exactly_one_effect(self, hot):
        """Killed before the commit: the retry, found by key, is the one that counts."""
        price = await make.new_price()
        users = [await make.account(100, user_id) for user_id in ("mio", "ria")]
        settling = [make.ticket(user_id, price) for user_id in users for _ in range(4)]
        await asyncio.gather(*(opened(one) for one in settling))
        opening = [make.ticket(user_id, price) for user_id in users for _ in range(4)]

        with Locked("mio"):
            work = [
                asyncio.ensure_future(requests.settle(make.settlement(one, 7))) for one in settling
            ]
            work += [asyncio.ensure_future(opened(one, 3)) for one in opening]
            await asyncio.sleep(0.1)
            await in_thread(terminate)(await sessions_of_the_hot_path("active"))
            await asyncio.sleep(0.05)
        done: list[Any] = await asyncio.gather(*work)

        assert [charged.charged for charged in done[:8]] == [7] * 8
        assert done[8:] == [3] * 8
        assert [await make.state(user_id) for user_id in users] == [(72, 12)] * 2
        assert await make.broken() == []

    async def test_an_answer_lost_after_the_commit_is_looked_up(self, hot, monkeypatch):
        price = await make.new_price()
        await make.account(100, "mio")
        first, second = make.ticket("mio", price), make.ticket("mio", price)
        execute, losses = database.execute, []

        async def lose_once(lent, sql, params):
            rows = await execute(lent, sql, params)
            if sql in (requests.OPEN_SQL, requests.SETTLE_SQL) and sql not in losses:
                losses.append(sql)
                await in_thread(terminate)([lent.info.backend_pid])
                await execute(lent, "SELECT 1", {})
            return rows

        monkeypatch.setattr(database, "execute", lose_once)
        held: Any = await asyncio.gather(opened(first), opened(second))
        ends = await asyncio.gather(
            requests.settle(make.settlement(first, 7)), requests.settle(make.settlement(second, 8))
        )

        assert losses == [requests.OPEN_SQL, requests.SETTLE_SQL]
        assert list(held) == [10, 10]
        assert [end.charged for end in ends] == [7, 8]
        assert all(end.replayed for end in ends)
        assert await make.state("mio") == (85, 0)
        assert await make.broken() == []

    async def test_idle_connections_killed_are_not_noticed(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")
        one = make.ticket("mio", price)
        await opened(one)
        await in_thread(terminate)(await sessions_of_the_hot_path("idle"))

        assert (await requests.settle(make.settlement(one, 7))).charged == 7
        await in_thread(terminate)(await sessions_of_the_hot_path("idle"))
        assert await opened(make.ticket("mio", price)) == 10
        assert await make.broken() == []

    async def test_a_read_outlasts_a_pool_of_killed_connections(self, hot):
        async with contextlib.AsyncExitStack() as lent:
            for _ in range(5):
                await lent.enter_async_context(database.connection())
        await in_thread(terminate)(await sessions_of_the_hot_path("idle"))

        assert await database.fetch("SELECT 7", {}) == [(7,)]

    async def test_a_loss_that_took_longer_than_the_retries_may_is_tried_again(self, monkeypatch):
        monkeypatch.setattr(database, "LOST_S", 0.02)
        calls = 0

        async def read():
            nonlocal calls
            calls += 1
            if calls == 1:
                await asyncio.sleep(0.1)
                raise psycopg.OperationalError
            return 7

        assert await database.retried(read) == 7

    async def test_settling_outlasts_an_absence_and_asks_seldom(self, hot, monkeypatch):
        price = await make.new_price()
        await make.account(100, "mio")
        one = make.ticket("mio", price)
        await opened(one)
        execute, loop, tries = database.execute, asyncio.get_running_loop(), []
        back_at = loop.time() + 0.3

        async def away_for_a_while(*statement):
            tries.append(statement)
            if loop.time() < back_at:
                raise psycopg.OperationalError
            return await execute(*statement)

        monkeypatch.setattr(database, "execute", away_for_a_while)

        assert (await requests.settle(make.settlement(one, 7))).charged == 7
        assert len(tries) < 10

    async def test_settling_gives_up_in_the_end_and_leaves_the_row_open(self, hot, monkeypatch):
        monkeypatch.setattr(requests, "SETTLE_DEADLINE_S", 0.2)
        price = await make.new_price()
        await make.account(100, "mio")
        one = make.ticket("mio", price)
        await opened(one)

        async def away(*_):
            raise psycopg.OperationalError

        with monkeypatch.context() as broken:
            broken.setattr(database, "execute", away)
            with pytest.raises(psycopg.OperationalError):
                await requests.settle(make.settlement(one, 7))

        assert (await make.request(one)).state == "open"
        assert (await requests.settle(make.settlement(one, 7))).replayed is False

    @pytest.mark.parametrize("failure", [psycopg.OperationalError, ZeroDivisionError])
    async def test_what_could_not_be_settled_is_in_the_log_to_settle_by_hand(
        self, hot, monkeypatch, caplog, failure
    ):
        """But for the answer, which is the user's."""
        monkeypatch.setattr(requests, "SETTLE_DEADLINE_S", 0)
        price = await make.new_price()
        one = make.ticket("mio", price, input_hash="ab" * 32, model="m")

        async def fails(*_):
            raise failure

        monkeypatch.setattr(database, "execute", fails)
        with pytest.raises(failure):
            await requests.settle(make.settlement(one, 7, result=b"the answer"))

        (record,) = [each for each in caplog.records if each.name == requests.logger.name]
        said = record.settlement
        assert (said["id"], said["user_id"], said["model"]) == (one.id, "mio", "m")
        assert (said["state"], said["charge"], said["prompt_tokens"]) == ("settled", 7, 7)
        assert not {"result", "input_hash"} & said.keys()

    async def test_a_deadlock_is_tried_again(self, hot):
        """Another session takes the two accounts in the wrong order, behind our back."""
        price = await make.new_price()
        tickets = []
        for user_id in ("mio", "ria"):
            await make.account(100, user_id)
            tickets.append(make.ticket(user_id, price))
            await opened(tickets[-1])
        locked = Locked("ria")

        with locked:
            work = [
                asyncio.ensure_future(requests.settle(make.settlement(one, 7))) for one in tickets
            ]
            await sessions_of_the_hot_path("active")
            crossing = "UPDATE user_flux SET frozen = false WHERE user_id = 'mio'"
            await in_thread(lambda: locked.session.execute(crossing))()
        ends = await asyncio.gather(*work)

        assert [end.charged for end in ends] == [7, 7]
        assert await make.broken() == []

    async def test_a_held_lock_refuses_an_open_in_time(self, hot, monkeypatch):
        monkeypatch.setattr(group_commit, "ALONE_S", 0.5)
        price = await make.new_price()
        for user_id in ("mio", "ria"):
            await make.account(100, user_id)
        began = asyncio.get_running_loop().time()

        with Locked("mio"):
            outcomes = await asyncio.gather(
                *(opened(make.ticket("mio", price)) for _ in range(12)),
                return_exceptions=True,
            )
            other = make.ticket("ria", price)
            assert await opened(other) == 10
            assert (await requests.settle(make.settlement(other, 7))).charged == 7

        assert {type(outcome) for outcome in outcomes} == {psycopg.errors.LockNotAvailable}
        assert asyncio.get_running_loop().time() - began < 8
        assert await in_thread(LLMRequestLog.objects.count)() == 1
