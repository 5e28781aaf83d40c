"""Places for parallel requests are given back, renewed and lapse; owners outlive callers."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from airi_server.kernel import redis
from airi_server.kernel.errors import TooManyRequests
from airi_server.runtime import published
from llmrouter.completions import operation as domain
from llmrouter.gateway import limits
from tests.factories import gateway
from tests.fakes.upstream import answer, stream
from tests.llmrouter.exchanges import principal

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def principal_of(caller, **fields):
    return principal(user_id=caller.user_id, api_key_id=caller.key_id, **fields)


def slots_of(caller):
    return redis.key("limit", f"{{{caller.user_id}}}:{caller.key_id}:slots")


async def leases(caller):
    """Return the leases Redis knows of: request id → when it lapses."""
    async with asyncio.timeout(5):
        while not redis.link().is_up:
            redis.link().dial()
            await asyncio.sleep(0.005)
        told = await redis.link().send("ZRANGE", slots_of(caller), 0, -1, "WITHSCORES")
    return {told[i].decode(): float(told[i + 1]) for i in range(0, len(told), 2)}


class TestCounters:
    async def test_go_from_redis_after_two_minutes(self, served, upstream):
        caller = await gateway.caller(requests_per_minute=10, tokens_per_minute=10_000)
        await gateway.route(upstream.base_url)
        began = int(time.time() // limits.WINDOW_S)

        assert (await served.post(PATH, BODY, caller.key)).status == 200

        ended = int(time.time() // limits.WINDOW_S)
        await leases(caller)  # what was told before has arrived
        for kind in ("requests", "tokens"):
            name = f"{{{caller.user_id}}}:{caller.key_id}:{kind}"
            keys = {redis.key("limit", name, str(bucket)) for bucket in (began, ended)}
            left_s = [await redis.link().send("TTL", key) for key in keys]
            assert 0 < max(left_s) <= 2 * limits.WINDOW_S


class TestGivenBack:
    async def test_by_an_idempotent_replay(self, served, upstream):
        caller = await gateway.caller(parallel_requests=1)
        await gateway.route(upstream.base_url)

        for streamed in (False, True):
            body = {**BODY, "stream": streamed}
            upstream.script(stream() if streamed else answer())
            again = [
                await served.post(PATH, body, caller.key, **{"Idempotency-Key": f"k{streamed}"})
                for _ in range(3)
            ]
            kept = 409 if streamed else 200
            assert [response.status for response in again] == [200, kept, kept]
            assert (await served.post(PATH, body, caller.key)).status == 200

        assert limits._running == {}
        assert await leases(caller) == {}

    async def test_by_whoever_is_cancelled_while_it_asks(self, hot):
        caller = await gateway.caller(flux=0)
        assert await leases(caller) == {}
        calling = principal_of(caller, parallel_requests=1)
        asking = asyncio.create_task(limits.admit(calling, "cancelled"))
        await asyncio.sleep(0)
        assert limits._running != {}

        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert limits._running == {}
        assert await leases(caller) == {}


class TestLease:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(limits, "LEASE_S", 1.0)
        monkeypatch.setattr(limits, "RENEW_S", 0.2)

    async def test_is_renewed_while_its_request_runs(self, served, upstream):
        caller = await gateway.caller(parallel_requests=1)
        await gateway.route(upstream.base_url)
        assert await leases(caller) == {}
        upstream.script(answer(after_s=1.6))
        running = asyncio.create_task(served.post(PATH, BODY, caller.key))
        await asyncio.sleep(1.3)

        ((request, lapses_at),) = (await leases(caller)).items()

        (row,) = await gateway.requests()
        assert request == str(row.id)
        assert lapses_at > time.time() + 0.3
        assert (await running).status == 200
        assert await leases(caller) == {}

    async def test_outlives_its_renewal_in_redis_no_longer_than_promised(self, hot):
        caller = await gateway.caller(flux=0)
        assert await leases(caller) == {}
        held = await limits.admit(principal_of(caller, parallel_requests=1), "held")
        assert held.slot is not None
        name = slots_of(caller)
        await redis.link().send("PERSIST", name)

        held.slot._renew()

        left_ms = await redis.link().send("PTTL", name)
        assert 0 < left_ms <= 1000 * (limits.LEASE_S + 1)
        limits.release(held, tokens=0)

    async def test_that_lapsed_is_not_taken_back(self, hot):
        """An instance that was stalled for so long: its place may be another's by now."""
        caller = await gateway.caller(flux=0)
        assert await leases(caller) == {}
        stalled = await limits.admit(principal_of(caller, parallel_requests=1), "stalled")
        assert stalled.slot is not None
        await redis.link().send("DEL", slots_of(caller))

        stalled.slot._renew()

        assert await leases(caller) == {}
        limits.release(stalled, tokens=0)

    async def test_is_renewed_no_more_once_it_was_given_back(self, hot):
        caller = await gateway.caller(flux=0)
        assert await leases(caller) == {}
        held = await limits.admit(principal_of(caller, parallel_requests=1), "held")
        assert held.slot is not None
        held.slot._renew()
        renewal = held.slot._renewal

        limits.release(held, tokens=0)

        assert renewal.cancelled()

    async def test_lapses_when_its_process_is_gone(self, hot):
        caller = await gateway.caller(flux=0)
        assert await leases(caller) == {}
        calling = principal_of(caller, parallel_requests=1)
        dead = await limits.admit(calling, "dead")
        assert dead.slot is not None
        dead.slot._renewal.cancel()
        limits.forget()
        with pytest.raises(TooManyRequests):
            await limits.admit(calling, "early")
        assert limits._running == {}

        await asyncio.sleep(1.1)
        admitted = await limits.admit(calling, "later")

        assert set(await leases(caller)) == {"later"}
        limits.release(admitted, tokens=0)


class TestOwner:
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_is_not_reached_by_the_cancellation_of_who_waits(self, hot, upstream, streamed):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        await published.refresh()

        async def step(request):
            await asyncio.sleep(0.4)
            return await (stream() if streamed else answer())(request)

        upstream.script(step)
        raw = orjson.dumps({**BODY, "stream": streamed})
        call = domain.Call(principal_of(caller, parallel_requests=1), raw)
        asking = asyncio.create_task(domain.chat(call))
        async with asyncio.timeout(30):
            while not upstream.seen:
                assert not asking.done(), asking
                await asyncio.sleep(0.01)

        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        async with asyncio.timeout(30):
            while not (await gateway.requests())[0].settled_at:
                await asyncio.sleep(0.02)
        (row,) = await gateway.requests()
        assert (row.state, row.outcome, row.error_code) == ("settled", "completed", None)
        assert (row.usage_source, row.flux_charged) == ("reported", 1)
        assert len(await gateway.debits(caller.user_id)) == 1
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (99, 0)
        assert limits._running == {}
