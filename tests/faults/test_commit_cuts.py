"""The connection to PostgreSQL cut at every byte around a commit: never twice, never lost.

A cut hides whether the statement ran. It is sent again, and the row's id says what became of the
first: so for every byte of the exchange, in both directions, there is one effect.
"""

from __future__ import annotations

import asyncio

import pytest

from billing import requests
from tests.factories import billing as make
from tests.lab import books

pytestmark = pytest.mark.asyncio
STRIDE = 61
"""Bytes from one cut to the next; it divides no length of a message, so that cuts wander."""
NARROW = 11
"""The same in what PostgreSQL answers, which is short and has the commit in it."""


async def cut_everywhere(proxy, stride, *, is_answer, prepare, act):
    """Repeat `act` with the cut one stride later each time, until it is beyond the exchange."""
    position = repeats = 0
    while True:
        prepared, cuts = await prepare(), proxy.cuts
        proxy.cut_after(position, is_answer=is_answer)
        await act(prepared)
        if proxy.cuts == cuts:
            proxy.keep()
            return repeats
        repeats += 1
        position += stride


@pytest.mark.parametrize(("is_answer", "stride"), [(False, STRIDE), (True, NARROW)])
class TestCut:
    async def test_while_it_opens_reserves_once(self, proxy, hot, is_answer, stride):
        price = await make.new_price()
        await make.account(100_000, "mio")
        opened = []

        async def prepare():
            opened.append(make.ticket("mio", price))
            return opened[-1]

        async def act(one):
            assert await requests.open(one, hold=make.hold(7), deadline_s=600) == 7

        repeats = await cut_everywhere(proxy, stride, is_answer=is_answer, prepare=prepare, act=act)

        assert repeats > 5
        assert await make.state("mio") == (100_000, 7 * len(opened))
        assert await make.broken() == []

    async def test_while_a_batch_settles_charges_each_once(self, proxy, hot, is_answer, stride):
        price = await make.new_price()
        users = [await make.account(100_000, user_id) for user_id in ("mio", "ria")]
        settled = []

        async def prepare():
            both = [make.ticket(user_id, price) for user_id in users]
            opening = (requests.open(one, hold=make.hold(9), deadline_s=600) for one in both)
            await asyncio.gather(*opening)
            return both

        async def act(both):
            ends = (requests.settle(make.settlement(one, 4)) for one in both)
            assert [end.charged for end in await asyncio.gather(*ends)] == [4, 4]
            settled.append(both)

        repeats = await cut_everywhere(proxy, stride, is_answer=is_answer, prepare=prepare, act=act)

        assert repeats > 5
        for user_id in users:
            assert await make.state(user_id) == (100_000 - 4 * len(settled), 0)
        await books.are_in_order()


async def test_one_byte_at_a_time_and_slowly_is_only_slow(proxy, hot):
    price = await make.new_price()
    await make.account(100, "mio")
    one = make.ticket("mio", price)
    proxy.latency_s, proxy.slices = 0.02, True

    await requests.open(one, hold=make.hold(9), deadline_s=600)
    charged = await requests.settle(make.settlement(one, 4))

    assert (charged.charged, charged.replayed) == (4, False)
    await books.are_in_order()
