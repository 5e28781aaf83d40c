"""The statements of paid requests in batches: neighbors survive, and nobody waits in a circle."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from airi_server.kernel import database, group_commit
from airi_server.kernel.group_commit import Overloaded
from airi_server.kernel.threads import in_thread
from billing import requests
from billing.models import LLMRequestLog
from tests.factories import billing as make

pytestmark = pytest.mark.asyncio


class TestOnTheRealStatements:
    async def test_neighbors_survive_a_row_the_database_refuses(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")
        tickets = [make.ticket("mio", price) for _ in range(8)]
        tickets[3] = make.ticket("mio", price, model="NUL \x00 in a name")
        tickets[5] = make.ticket("mio", price, prompt_estimate=2**40)

        outcomes = await asyncio.gather(
            *(requests.open(one, hold=make.hold(5), deadline_s=60) for one in tickets),
            return_exceptions=True,
        )
        good = [one for number, one in enumerate(tickets) if number not in (3, 5)]
        ends = [make.settlement(one, 5) for one in good]
        ends[2].duration_ms = 2**40
        settled = await asyncio.gather(
            *(requests.settle(end) for end in ends), return_exceptions=True
        )

        assert [outcome for outcome in outcomes if outcome == 5] == [5] * 6
        assert all(isinstance(outcomes[bad], psycopg.DataError) for bad in (3, 5))
        assert isinstance(settled[2], psycopg.DataError)
        assert sum(not isinstance(end, Exception) for end in settled) == 5
        assert await make.state("mio") == (75, 5)
        assert await make.broken() == []

    async def test_batches_over_the_same_rows_in_any_order_do_not_deadlock(self, hot):
        """Two connections settle and mark the same requests, back to front."""
        price = await make.new_price()
        users = [await make.account(1000) for _ in range(6)]
        tickets = [make.ticket(user_id, price) for user_id in users for _ in range(5)]
        await asyncio.gather(
            *(requests.open(one, hold=make.hold(2), deadline_s=60) for one in tickets)
        )

        async def run(batch, kind):
            async with database.connection() as lent:
                if kind == "mark":
                    await requests._mark_batch(lent, [{"id": t.id, "checkpoint": 1} for t in batch])
                    return []
                return await requests._settle_batch(
                    lent, [make.settlement(one, 2).row() for one in batch]
                )

        done = await asyncio.gather(
            run(tickets, "settle"),
            run(tickets[::-1], "settle"),
            run(tickets[::2], "mark"),
            run(tickets[::-3], "settle"),
            run(tickets[::-1], "mark"),
        )

        assert sum(not charged.replayed for part in done for charged in part) == len(tickets)
        assert await in_thread(LLMRequestLog.objects.filter(state="settled").count)() == 30
        assert await make.broken() == []

    async def test_a_full_queue_refuses_to_open_and_settles_all_the_same(self, hot, monkeypatch):
        price = await make.new_price()
        await make.account(100, "mio")
        tickets = [make.ticket("mio", price) for _ in range(8)]
        await asyncio.gather(
            *(requests.open(one, hold=make.hold(5), deadline_s=60) for one in tickets)
        )
        monkeypatch.setattr(group_commit, "MAX_WAITING", 2)

        more = (make.ticket("mio", price) for _ in range(8))
        opened = await asyncio.gather(
            *(requests.open(one, hold=make.hold(1), deadline_s=60) for one in more),
            return_exceptions=True,
        )
        settled = await asyncio.gather(
            *(requests.settle(make.settlement(one, 5)) for one in tickets)
        )

        assert [1 if each == 1 else type(each) for each in opened] == [1] * 2 + [Overloaded] * 6
        assert [each.charged for each in settled] == [5] * 8
        assert await make.state("mio") == (60, 2)
