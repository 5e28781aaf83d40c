"""Open, mark and settle over the hot path's own pool: replays, refusals, lost connections."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from billing import requests
from billing.ledger import AccountClosed
from billing.models import FluxAccount
from billing.requests import Replay, SpendingLimits
from tests.billing.corruption import corrupt
from tests.factories import billing as make

pytestmark = pytest.mark.asyncio
HASH = "ab" * 32


async def opened(one, wanted=10, floor=None, **more):
    return await requests.open(one, hold=make.hold(wanted, floor), deadline_s=60, **more)


def freeze(**columns):
    FluxAccount.objects.update(**columns)


class TestOpen:
    async def test_opens_the_account_on_the_way_and_refuses_with_the_numbers(self, hot):
        price = await make.new_price()

        with pytest.raises(requests.InsufficientFlux) as refused:
            await opened(make.ticket("mio", price), 5)

        assert refused.value.details == {"available": 0, "required": 5}
        assert await make.state("mio") == (0, 0)

    async def test_has_a_refusal_for_each_reason(self, hot):
        price = await make.new_price()
        await make.account(10, "mio")

        for limits in (SpendingLimits(day=3), SpendingLimits(month=3), SpendingLimits(total=3)):
            with pytest.raises(requests.SpendingLimitReached) as limited:
                await opened(make.ticket("mio", price, api_key_id="k"), 4, limits=limits)
            assert limited.value.details == {"available": 3, "required": 4}
        await in_thread(freeze)(frozen=True)
        with pytest.raises(requests.AccountFrozen):
            await opened(make.ticket("mio", price), 1)
        await in_thread(freeze)(deleted_at=make.NOW)
        with pytest.raises(AccountClosed):
            await opened(make.ticket("mio", price), 1)
        assert await make.state("mio") == (10, 0)

    async def test_the_last_flux_of_a_key_is_spent_once(self, hot):
        price = await make.new_price()
        await make.account(10, "mio")
        last = make.ticket("mio", price, api_key_id="k")
        await opened(last, 1, limits=SpendingLimits(day=1))
        await requests.settle(make.settlement(last, 1))

        with pytest.raises(requests.SpendingLimitReached) as limited:
            await opened(make.ticket("mio", price, api_key_id="k"), 1, limits=SpendingLimits(day=1))
        assert limited.value.details == {"available": 0, "required": 1}

    async def test_a_client_key_brings_the_answer_of_the_first(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")
        first = make.ticket("mio", price, client_key="k", input_hash=HASH)
        again = make.ticket("mio", price, client_key="k", input_hash=HASH)
        other = make.ticket("mio", price, client_key="k", input_hash="cd" * 32)
        await make.account(100, "neru")
        for whose in ("mio", "neru"):
            not_it = make.ticket(whose, price, client_key="another", input_hash=HASH)
            await opened(not_it)
            await requests.settle(make.settlement(not_it, 0, result=b"not it"))
        await opened(first)

        with pytest.raises(requests.StillInFlight) as refused:
            await opened(again)
        assert refused.value.retry_after_s == 1
        with pytest.raises(requests.KeyReused):
            await opened(other)
        await requests.settle(make.settlement(first, 7, result=b"answer"))
        replay = await opened(again)
        with pytest.raises(requests.KeyReused):
            await opened(other)

        assert replay == Replay(first.id, b"answer", 7)
        assert await make.state("mio") == (93, 0)

    async def test_a_client_key_brings_an_answer_that_cost_nothing_too(self, hot):
        price = await make.new_price(
            flux_per_1k_input=0, flux_per_1k_output=0, flux_per_1k_cached=0, flux_per_request=0
        )
        await make.account(0, "mio")
        first = make.ticket("mio", price, client_key="k", input_hash=HASH)
        await opened(first, 0)

        charged = await requests.settle(make.settlement(first, 7, result=b"answer"))
        replay = await opened(make.ticket("mio", price, client_key="k", input_hash=HASH), 0)

        assert charged.charged == 0
        assert replay == Replay(first.id, b"answer", 0)

    async def test_a_client_key_whose_answer_was_not_kept_says_so(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")
        first = make.ticket("mio", price, client_key="k", input_hash=HASH)
        await opened(first)
        await requests.settle(make.settlement(first, 7))

        with pytest.raises(requests.AlreadyProcessed) as refused:
            await opened(make.ticket("mio", price, client_key="k", input_hash=HASH))

        assert refused.value.details == {"requestId": str(first.id), "fluxCharged": 7}

    @pytest.mark.parametrize("is_gone", [False, True])
    async def test_a_client_key_whose_request_fails_while_it_is_looked_up_is_not_processed(
        self, hot, monkeypatch, is_gone
    ):
        price = await make.new_price()
        await make.account(100, "mio")
        first = make.ticket("mio", price, client_key="k", input_hash=HASH)
        again = make.ticket("mio", price, client_key="k", input_hash="cd" * 32)
        await opened(first)
        look = database.fetch

        async def look_late(sql, params):
            await requests.settle(make.settlement(first, None))
            if is_gone:
                await in_thread(corrupt)("DELETE FROM llm_request_log", {})
            return await look(sql, params)

        monkeypatch.setattr(database, "fetch", look_late)
        with pytest.raises(requests.StillInFlight) as refused:
            await opened(again)
        monkeypatch.undo()

        assert refused.value.retry_after_s == 1
        assert await opened(again) == 10

    async def test_fifty_at_once_with_one_client_key_have_one_effect(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")

        async def call():
            one = make.ticket("mio", price, client_key="k", input_hash=HASH)
            try:
                found = await opened(one)
            except requests.StillInFlight:
                return "in flight"
            if isinstance(found, Replay):
                return "replay"
            await requests.settle(make.settlement(one, 7, result=b"answer"))
            return "paid"

        outcomes = Counter(await asyncio.gather(*(call() for _ in range(50))))
        late = Counter(await asyncio.gather(*(call() for _ in range(50))))

        assert outcomes["paid"] == 1
        assert late == {"replay": 50}
        assert await make.state("mio") == (93, 0)
        assert await make.broken() == []

    async def test_two_hundred_at_once_never_spend_more_than_there_is(self, hot):
        price = await make.new_price()
        users = [await make.account(100, user_id) for user_id in ("mio", "ria", "zoe")]

        async def call(number):
            one = make.ticket(users[number % 3], price)
            try:
                await opened(one, 9, 4)
            except requests.InsufficientFlux:
                return 0
            tokens = None if number % 5 == 0 else number % 13
            if tokens is not None:
                await requests.mark(one.id, checkpoint=number)
            return (await requests.settle(make.settlement(one, tokens))).charged

        charged = sum(await asyncio.gather(*(call(number) for number in range(200))))

        states = [await make.state(user_id) for user_id in users]
        assert sum(balance for balance, _ in states) == 300 - charged
        assert all(held == 0 for _, held in states)
        assert await make.broken() == []


class TestMoneyNeverWaitsForAReader:
    async def test_checking_under_load_reports_nothing_false(self, hot):
        """`reconcile-usage` reads one snapshot while requests open, stream and end."""
        price = await make.new_price()
        users = [await make.account(10_000) for _ in range(5)]
        stop = asyncio.Event()

        async def load(number):
            paid = 0
            while not stop.is_set():
                one = make.ticket(users[number % 5], price, api_key_id=f"k{number}")
                await opened(one, 5)
                await requests.mark(one.id, checkpoint=1)
                paid += (await requests.settle(make.settlement(one, paid % 7))).charged
            return paid

        running = [asyncio.ensure_future(load(number)) for number in range(10)]
        reports = [await make.broken() for _ in range(12)]
        stop.set()
        await asyncio.gather(*running)

        assert reports == [[]] * 12
        assert await make.broken() == []
