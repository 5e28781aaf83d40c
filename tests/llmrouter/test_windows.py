"""A minute as the limits count it: what is left, when to come back, and who has to be asked."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from airi_server.kernel import redis
from airi_server.kernel.errors import TooManyRequests
from airi_server.runtime import published
from llmrouter.gateway import limits
from llmrouter.gateway.limits import RateLimited
from tests.factories import gateway
from tests.fakes.raw import silent
from tests.llmrouter.exchanges import principal
from tests.llmrouter.test_health import up

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(autouse=True)
async def connected(hot):
    await up(redis.link())


async def settled():
    """Let what was sent to Redis without waiting arrive."""
    await asyncio.wait_for(redis.link().send("PING"), 5)


async def refused(caller):
    """Return how a request is refused."""
    with pytest.raises(RateLimited) as raised:
        await limits.admit(caller, "refused")
    return raised.value


async def use(caller, tokens):
    """Make a request that uses so many tokens; return what it was admitted with."""
    admitted = await limits.admit(caller, "r")
    limits.release(admitted, tokens=tokens)
    return admitted


async def has_to_wait(asking):
    """Return whether a coroutine waits for somebody, once it has ended."""
    task = asyncio.create_task(asking)
    await asyncio.sleep(0)
    waits = not task.done()
    await task
    return waits


async def counted_by_redis(caller, clock):
    await settled()
    name = f"{{{caller.user_id}}}:{caller.api_key_id}:requests"
    bucket = str(int(clock.now) // limits.WINDOW_S)
    return int(await redis.link().send("GET", redis.key("limit", name, bucket)))


class TestWindow:
    """A minute is the running bucket and the share of the last one that is still within it."""

    async def test_slides(self, clock):
        caller = principal(requests_per_minute=10)
        admissions = [await limits.admit(caller, f"r{number}") for number in range(10)]
        assert dict(admissions[-1].headers)["RateLimit-Remaining"] == "0"
        assert (await refused(caller)).retry_after_s == 60

        clock.now += 60
        assert (await refused(caller)).retry_after_s == 6

        clock.now += 6
        await limits.admit(caller, "r")
        await refused(caller)

        clock.now += 120
        for number in range(10):
            await limits.admit(caller, f"s{number}")

    async def test_says_what_is_left_of_it_and_when_it_ends(self, clock):
        caller = principal(requests_per_minute=2)
        clock.now += 20.5

        first, second = await limits.admit(caller, "r1"), await limits.admit(caller, "r2")
        third = await refused(caller)

        limit = (("RateLimit-Policy", "2;w=60"), ("RateLimit-Limit", "2"))
        ends = ("RateLimit-Reset", "40")
        assert first.headers == (*limit, ("RateLimit-Remaining", "1"), ends)
        assert second.headers == (*limit, ("RateLimit-Remaining", "0"), ends)
        assert third.headers == dict(second.headers)
        assert third.retry_after_s == 40

    async def test_that_is_full_by_itself_is_waited_out_whatever_was_before(self, clock):
        caller = principal(tokens_per_minute=100)
        await use(caller, 60)
        clock.now += 60 + 45
        await use(caller, 100)

        assert (await refused(caller)).retry_after_s == 15

    async def test_that_ended_long_ago_does_not_count(self, clock):
        caller = principal(requests_per_minute=1)
        await limits.admit(caller, "r1")

        clock.now += 120

        assert (await limits.admit(caller, "r2")).headers[2] == ("RateLimit-Remaining", "0")

    async def test_of_the_minute_before_is_learnt_from_redis(self, clock):
        caller = principal(requests_per_minute=10)
        for number in range(10):
            await limits.admit(caller, f"r{number}")
        await settled()
        limits.forget()
        clock.now += 60

        await refused(caller)

    async def test_is_not_used_up_by_whom_it_refuses(self, clock):
        """Also if only Redis knew that the limit was reached."""
        caller = principal(requests_per_minute=3)
        for number in range(3):
            await limits.admit(caller, f"r{number}")
        await settled()
        limits.forget()  # the next instance

        for _ in range(3):
            await refused(caller)

        assert await counted_by_redis(caller, clock) == 3

    async def test_counts_the_tokens_of_what_ended_and_none_of_what_failed(self, clock):
        caller = principal(tokens_per_minute=100)
        failed = await use(caller, 0)
        assert failed.tokens is not None
        assert limits._windows[failed.tokens].current == 0

        await use(caller, 99)
        await use(caller, 1)

        assert (await refused(caller)).retry_after_s == 60


class TestRedis:
    async def test_is_waited_for_by_the_first_of_a_minute_and_the_last_places(self, clock):
        caller = principal(requests_per_minute=10)
        for _ in range(2):
            clock.now += 120

            waits = [await has_to_wait(limits.admit(caller, f"r{n}")) for n in range(10)]

            assert waits == [True] + [False] * 7 + [True] * 2

    async def test_is_waited_for_once_a_minute_while_it_is_silent(self, clock, settings):
        caller = principal(requests_per_minute=10)
        await redis.close()
        async with silent() as port:
            settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
            await up(redis.link())

            waits = [await has_to_wait(limits.admit(caller, f"r{n}")) for n in range(3)]
            await redis.close()

        assert waits == [True, False, False]


class TestWhoIsLimited:
    @pytest.mark.parametrize(
        ("own", "key_id", "name"),
        [(100, "k", "{u}:k:tokens"), (None, "k", "{u}:tokens"), (100, None, "{u}:tokens")],
    )
    async def test_a_key_with_a_limit_or_else_its_user(self, own, key_id, name):
        await gateway.option("TOKENS_PER_MINUTE", 1000)
        await published.refresh()

        admitted = await limits.admit(
            principal(user_id="u", api_key_id=key_id, tokens_per_minute=own), "r"
        )

        assert admitted.tokens == name

    async def test_nobody_without_limits_is_counted(self):
        admitted = await limits.admit(principal(), "r")

        assert admitted is limits.UNLIMITED
        assert limits._windows == {}


class TestRefusal:
    """The counter that an operator watches names whose limit it was, and how high."""

    @pytest.mark.parametrize(
        "limit", ["requests_per_minute", "tokens_per_minute", "parallel_requests"]
    )
    async def test_of_a_key_is_counted_with_its_limit(self, counted, clock, limit):
        caller = principal(**{limit: 1})
        admitted = await limits.admit(caller, "r1")
        if admitted.tokens:
            limits.release(admitted, tokens=1)

        with pytest.raises(TooManyRequests):
            await limits.admit(caller, "r2")
        if not admitted.tokens:  # these are also known to Redis
            limits.forget()
            with pytest.raises(TooManyRequests):
                await limits.admit(caller, "r3")

        of_the_key = {"route": "openai.completions", "key_type": "key", "limit": "1"}
        assert counted["RATE_LIMITED"] == [of_the_key] * (1 if admitted.tokens else 2)

    async def test_of_a_user_is_counted_with_the_operators_limit(self, counted, clock):
        await gateway.option("COMPLETIONS_PER_MINUTE", 1)
        await published.refresh()
        caller = principal(requests_per_minute=None)
        await limits.admit(caller, "r1")

        await refused(caller)

        of_the_user = {"route": "openai.completions", "key_type": "user", "limit": "1"}
        assert counted["RATE_LIMITED"] == [of_the_user]


class TestMemory:
    async def test_is_bounded(self, clock, monkeypatch):
        monkeypatch.setattr(limits, "MAX_WINDOWS", 10)
        for number in range(25):
            limits._window(f"u{number}", clock.now)
            clock.now += 61
        assert len(limits._windows) <= 10
        for number in range(25):
            limits._window(f"v{number}", clock.now)
        assert len(limits._windows) <= 10

    async def test_is_taken_from_the_windows_that_have_ended(self, clock, monkeypatch):
        monkeypatch.setattr(limits, "MAX_WINDOWS", 3)
        for name in ("old", "last", "new"):
            limits._window(name, clock.now)
            clock.now += 60
        clock.now -= 60

        limits._window("newer", clock.now)

        assert set(limits._windows) == {"last", "new", "newer"}
