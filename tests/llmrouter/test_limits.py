"""Requests and tokens a minute, requests at once: counted for key or user, shared through Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airi_server.kernel import redis
from airi_server.kernel.errors import TooManyRequests
from llmrouter.gateway import limits
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, stream, usage
from tests.llmrouter.exchanges import principal
from tests.llmrouter.test_health import up

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("clock")]
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
DEFAULTS: dict[str, Any] = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "parallel_requests": None,
}


async def statuses(served, key, count, path=PATH):
    return [(await served.post(path, BODY, key)).status for _ in range(count)]


async def settled():
    """Let what was sent to Redis without waiting arrive."""
    await asyncio.wait_for(redis.link().send("PING"), 5)


class TestRequestsPerMinute:
    async def test_case_20_the_61st_is_refused_and_other_users_are_not(self, served, upstream):
        caller, other = await gateway.caller(**DEFAULTS), await gateway.caller(**DEFAULTS)
        await gateway.route(upstream.base_url)
        await up(redis.link())

        responses = [await served.post(PATH, BODY, caller.key) for _ in range(62)]

        assert [response.status for response in responses] == [200] * 60 + [429] * 2
        first, last = responses[0].headers, responses[60].headers
        assert (first["RateLimit-Policy"], first["RateLimit-Limit"]) == ("60;w=60", "60")
        assert first["RateLimit-Remaining"] == "59"
        assert 1 <= int(first["RateLimit-Reset"]) <= 60
        assert (last["RateLimit-Limit"], last["RateLimit-Remaining"]) == ("60", "0")
        assert 1 <= int(last["Retry-After"]) <= 60
        assert responses[60].json() == {
            "error": {"message": "Too many requests", "type": "rate_limit_error", "param": None,
                      "code": "TOO_MANY_REQUESTS"},
            "message": "Too many requests",
        }  # fmt: skip
        assert len(upstream.seen) == 60
        assert await statuses(served, other.key, 1) == [200]

    async def test_of_a_key_counts_in_place_of_the_users_and_zero_is_no_limit(
        self, served, upstream
    ):
        await gateway.option("COMPLETIONS_PER_MINUTE", 2)
        await gateway.route(upstream.base_url)
        default = await gateway.caller(**DEFAULTS)
        tight = await gateway.caller(**{**DEFAULTS, "requests_per_minute": 1})
        free = await gateway.caller(**{**DEFAULTS, "requests_per_minute": 0})
        await up(redis.link())

        assert await statuses(served, default.key, 3) == [200, 200, 429]
        assert await statuses(served, tight.key, 2) == [200, 429]
        assert await statuses(served, free.key, 5) == [200] * 5
        await gateway.option("COMPLETIONS_PER_MINUTE", 0)
        assert await statuses(served, default.key, 2) == [200] * 2

    async def test_is_used_up_also_by_what_is_refused_later(self, served, upstream):
        """A 402 consumes quota (contract §1.6)."""
        caller = await gateway.caller(flux=0, requests_per_minute=2)
        await gateway.route(upstream.base_url)
        await up(redis.link())

        assert await statuses(served, caller.key, 3) == [402, 402, 429]

    async def test_is_shared_by_instances(self, served, upstream):
        """An instance that knows nothing of the user hears from Redis before it says yes."""
        caller = await gateway.caller(requests_per_minute=5)
        await gateway.route(upstream.base_url)
        await up(redis.link())

        first = await statuses(served, caller.key, 3)
        await settled()
        limits.forget()  # the next instance
        second = await statuses(served, caller.key, 3)
        await settled()
        limits.forget()
        burst = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(5)))

        assert (first, second) == ([200] * 3, [200] * 2 + [429])
        assert {response.status for response in burst} == {429}

    async def test_gives_out_the_last_places_exactly(self, served, upstream):
        caller = await gateway.caller(requests_per_minute=10)
        await gateway.route(upstream.base_url)
        await up(redis.link())

        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(40)))

        assert sorted(r.status for r in responses) == [200] * 10 + [429] * 30

    async def test_is_counted_locally_without_redis(self, served, upstream, lose_redis):
        caller = await gateway.caller(requests_per_minute=3)
        await gateway.route(upstream.base_url)
        await lose_redis()

        assert await statuses(served, caller.key, 5) == [200] * 3 + [429] * 2


class TestTokensPerMinute:
    async def test_are_counted_when_they_are_known(self, served, upstream, clock):
        caller = await gateway.caller(tokens_per_minute=1_000)
        await gateway.route(upstream.base_url)
        upstream.script(
            answer(completion(use=usage(300, 100))),
            stream(),  # 160 tokens
            answer(completion(use=usage(500, 0))),
        )
        await up(redis.link())

        first = await statuses(served, caller.key, 1)
        streamed = await served.post(PATH, {**BODY, "stream": True}, caller.key)
        rest = await statuses(served, caller.key, 2)
        await settled()
        limits.forget()
        limits._window(f"{{{caller.user_id}}}:{caller.key_id}:tokens", clock.now).take(0)
        await settled()
        elsewhere = await statuses(served, caller.key, 1)

        assert (first, streamed.status, rest, elsewhere) == ([200], 200, [200, 429], [429])


class TestParallelRequests:
    async def test_hold_their_place_until_they_are_settled(self, served, upstream):
        caller = await gateway.caller(parallel_requests=3)
        await gateway.route(upstream.base_url)
        upstream.script(answer(after_s=0.2))
        await up(redis.link())

        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(8)))

        assert sorted(r.status for r in responses) == [200] * 3 + [429] * 5
        refused = next(r for r in responses if r.status == 429)
        assert refused.headers["Retry-After"] == "1"
        upstream.script(answer(status=500), answer(b"{"), answer())
        await gateway.route(upstream.base_url, timeout_ms=3_000)
        bad = [
            await served.post(PATH, {**BODY, **b}, caller.key) for b in ({"n": 0}, {"model": "x"})
        ]
        assert [response.status for response in bad] == [400, 400]
        assert await statuses(served, caller.key, 4) == [502, 502, 200, 200]
        assert limits._running == {}

    async def test_are_shared_by_instances_and_given_back(self, served, upstream):
        caller = await gateway.caller(parallel_requests=1)
        await gateway.route(upstream.base_url)
        upstream.script(answer(after_s=0.3))
        await up(redis.link())
        first = asyncio.create_task(served.post(PATH, BODY, caller.key))
        async with asyncio.timeout(5):
            while not upstream.seen:
                await asyncio.sleep(0.01)

        running, limits._running = limits._running, {}  # another instance has none of its own
        elsewhere = await served.post(PATH, BODY, caller.key)
        limits._running = running

        assert (elsewhere.status, (await first).status) == (429, 200)
        await settled()
        assert await statuses(served, caller.key, 1) == [200]

    async def test_lapse_with_the_instance_that_died(self, hot, clock):
        await up(redis.link())
        caller = principal(parallel_requests=1)

        await limits.admit(caller, "r1")
        limits.forget()  # it died without giving the place back
        with pytest.raises(TooManyRequests):
            await limits.admit(caller, "r2")
        clock.now += limits.LEASE_S + 1

        assert (await limits.admit(caller, "r2")).slot

    async def test_are_exact_without_redis_and_given_back(self, hot, lose_redis):
        caller = principal(parallel_requests=2)
        await lose_redis()

        for round_ in range(2):
            asking = (limits.admit(caller, f"r{round_}{n}") for n in range(10))
            answers = await asyncio.gather(*asking, return_exceptions=True)
            admitted = [each for each in answers if isinstance(each, limits.Admission)]

            assert len(admitted) == 2
            assert {type(each) for each in answers} == {limits.Admission, TooManyRequests}
            for each in admitted:
                limits.release(each, tokens=0)
            assert limits._running == {}
