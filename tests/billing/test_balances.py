"""Reading a balance, which is what opens an account (cases 92 and 93)."""

from __future__ import annotations

import asyncio

import pytest

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from airi_server.runtime import published
from airi_server.runtime.options import put
from billing import balances, options
from billing.ledger import AccountClosed
from tests.factories import billing as make

pytestmark = pytest.mark.asyncio


class TestOf:
    async def test_first_reads_at_once_open_one_account(self, hot):
        await in_thread(put)(options.INITIAL_USER_FLUX.name, 100, by="tester", at=make.NOW)
        await published.refresh()

        read = await asyncio.gather(*(balances.of("mio") for _ in range(20)))
        raced = await asyncio.gather(
            *(balances.open_account("ria") for _ in range(20)),
            *(balances.of("ria") for _ in range(20)),
        )

        assert read == [100] * 20
        assert raced[20:] == [100] * 20
        for user_id in ("mio", "ria"):
            (entry,) = await make.entries(user_id)
            assert (entry.kind, entry.balance_after) == ("initial", 100)
        trips = database.round_trips
        assert await balances.of("mio") == 100
        assert database.round_trips - trips == 1
        assert await make.broken() == []

    async def test_reads_many_users_in_few_round_trips(self, hot):
        users = [await make.account(flux) for flux in range(1, 8)]
        await balances.of(users[0])
        trips = database.round_trips

        read = await asyncio.gather(*(balances.of(user_id) for user_id in users))

        assert read == list(range(1, 8))
        assert database.round_trips - trips == 1

    async def test_a_deleted_account_has_none(self, hot):
        await make.account(5, "mio", deleted_at=make.NOW)

        with pytest.raises(AccountClosed):
            await balances.of("mio")
