"""Which keys rest, for how long, who tries them again, and how other instances hear of it."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
import pytest_asyncio

from airi_server.kernel import notify, redis
from llmrouter.configuration.routes import compile as compile_routes
from llmrouter.routing import failures, health
from llmrouter.routing.failures import AttemptFailed
from llmrouter.routing.planning import plan
from tests.factories import llmrouter as routers

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TestSecondsOf:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7),
            ("0.5", 0.5),
            ("-3", -3),
            (" 7 ", 7),
            (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
            (format_datetime(NOW - timedelta(days=1), usegmt=True), -86_400),
            ("Sun, 01 Mar 2026 12:01:00 -0000", 60),
            (None, 5),
            ("", 5),
            ("soon", 5),
            ("9" * 40, 1e16),
            ("Sun, 99 Mar 2026 12:00:00 GMT", 5),
            ("Sun, 01 Mar 99999 12:00:00 GMT", 5),
            ("\x00", 5),
        ],
    )
    def test_reads_digits_and_dates_and_nothing_else(self, header, seconds):
        assert failures.seconds_of(header, now=NOW, default=5) == seconds


@pytest.fixture
def attempt():
    """An attempt with the first of two keys; nothing is known of it."""
    health.forget()
    table = compile_routes(
        routers.chat_tree(
            m=routers.chat_model(
                routers.upstream(
                    keys=[routers.sealed_key(model="m", key_id=key) for key in ("k1", "k2")]
                ),
                name="m",
            )
        ),
        7,
    )
    yield plan(table, "m", {}, 0.0, lambda: 0.0).attempts[0]
    health.forget()


@pytest_asyncio.fixture
async def linked():
    """Both connections to Redis, up."""
    notify.listen()
    await up(redis.link())
    await up(notify._subscribers.get())
    yield
    await notify.close()
    await redis.close()


async def up(link):
    async with asyncio.timeout(5):
        while not link.is_up:
            link.dial()
            await asyncio.sleep(0.005)


def rest_after(attempt, status, retry_after=None, reason=None):
    """Return how long the key rests after one failure."""
    reason = reason or str(status)
    health.note_failure(attempt, AttemptFailed(reason, status=status, retry_after=retry_after))
    until = health.resting(7).get(attempt.key.health_id, 0.0)
    return until - time.time() if until else 0.0


@pytest.mark.asyncio
class TestRest:
    @pytest.mark.parametrize(
        ("status", "retry_after", "rest"),
        [
            (401, None, math.inf),
            (403, None, 5),
            (402, None, 5),
            (429, None, 5),
            (429, "30", 30),
            (429, "-5", 1),
            (429, "0", 1),
            (429, "86400", 600),
            (429, "9" * 300, 600),
            (429, "nan", 5),
            (429, "inf", 5),
            (429, "1e15", 600),
            (429, "tomorrow", 5),
            (500, None, 0),
            (503, "30", 0),
        ],
    )
    async def test_is_what_the_failure_says(self, linked, attempt, status, retry_after, rest):
        assert rest_after(attempt, status, retry_after) == pytest.approx(rest, abs=0.2)

    async def test_of_a_date_is_the_time_until_then(self, linked, attempt):
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

        assert rest_after(attempt, 429, at) == pytest.approx(90, abs=1.5)

    async def test_of_failures_in_a_row_doubles_up_to_a_minute(self, linked, attempt):
        rests = [rest_after(attempt, None, reason="timeout") for _ in range(12)]

        assert [round(rest) for rest in rests] == [0] * 4 + [2, 4, 8, 16, 32, 60, 60, 60]

    @pytest.mark.parametrize("status", [402, 403])
    async def test_of_refusals_in_a_row_grows_fourfold_up_to_an_hour(self, linked, attempt, status):
        rests = [rest_after(attempt, status) for _ in range(7)]

        assert [round(rest) for rest in rests] == [5, 20, 80, 320, 1280, 3600, 3600]

    async def test_of_the_first_refusal_is_short_whatever_else_failed_before(self, linked, attempt):
        """Neither the breaker's strikes nor another instance's word make it longer."""
        for _ in range(4):
            rest_after(attempt, 500)
        assert round(rest_after(attempt, 403)) == 5

        health.forget()
        health._learn({"id": attempt.key.health_id, "until": time.time() - 1, "reason": "403"})
        assert round(rest_after(attempt, 403)) == 5

    async def test_ends_with_a_success(self, linked, attempt):
        for _ in range(5):
            rest_after(attempt, 500)
        health.note_success(attempt)

        assert attempt.key.health_id not in health.resting(7)
        assert rest_after(attempt, 500) == 0

    async def test_ends_with_a_new_revision(self, linked, attempt):
        rest_after(attempt, 401)

        assert health.resting(7)
        assert health.resting(8) == {}

    async def test_is_over_for_one_probe_at_a_time(self, linked, attempt):
        rest_after(attempt, 429, "1")
        record = health._records[attempt.key.health_id]
        assert not health.claim(attempt)

        record.until = time.time() - 0.01
        again = attempt._replace(position=2)
        assert health.claim(attempt)
        assert not health.claim(again)

        health.give_back(again)
        assert not health.claim(again)
        health.give_back(attempt)
        assert health.claim(again)
        health.note_success(again)
        assert health.claim(attempt)
        assert health.claim(again)


@pytest.mark.asyncio
class TestInstances:
    async def test_hear_of_a_rest_and_of_its_end(self, linked, attempt):
        """Another instance is played by its messages, on the channel it would use."""
        name = attempt.key.health_id
        hint = {"topic": "health", "id": name, "until": time.time() + 60, "reason": "429"}
        await publish(hint)
        await eventually(lambda: name in health.resting(7))
        assert health.rest_of(name)[1] == "429"

        await publish({**hint, "until": None})
        await eventually(lambda: math.isinf(health.resting(7)[name]))

        await publish({**hint, "until": 0})
        await eventually(lambda: name not in health.resting(7))

    async def test_are_told(self, linked, attempt):
        heard: list[Any] = []
        handlers = notify._handlers["health"]
        handlers.append(heard.append)
        try:
            health.note_failure(attempt, AttemptFailed("402", status=402))
            await eventually(lambda: heard)
            told = health.resting_from_redis()[attempt.key.health_id]
            health.note_success(attempt)
            await eventually(lambda: len(heard) == 2)
        finally:
            handlers.remove(heard.append)

        assert told[0] == pytest.approx(time.time() + 5, abs=2)
        assert told[1] == "402"
        assert [fact["until"] == 0 for fact in heard] == [False, True]
        assert attempt.key.health_id not in health.resting_from_redis()

    async def test_learn_on_their_start_what_was_told_before(self, attempt):
        """A new instance: its connections come up after the first hint was due."""
        health_id = attempt.key.health_id
        notify.listen()
        await up(redis.link())
        health.note_failure(attempt, AttemptFailed("401", status=401))
        await asyncio.wait_for(redis.link().send("PING"), 5)
        await notify.close()
        await redis.close()
        health.forget()

        notify.listen()
        await eventually(lambda: health_id in health.resting(7))
        await notify.close()
        await redis.close()

    async def test_forget_what_was_told_of_a_revision_that_is_gone(self, linked, attempt):
        """Nobody ran when the operator looked: what Redis still says is out of date."""
        name = attempt.key.health_id
        facts = {"topic": "health", "until": time.time() + 60, "reason": "401"}
        await publish({**facts, "id": "old", "revision": 6})
        await publish({**facts, "id": name, "revision": 7})
        await eventually(lambda: name in health._records)
        assert name in health.resting(7)
        assert "old" not in health.resting(7)

        await publish({**facts, "id": "old", "revision": 6})
        await publish({**facts, "id": "new", "revision": 7})
        await eventually(lambda: "new" in health.resting(7))
        assert "old" not in health.resting(7)

    async def test_are_not_misled_by_what_redis_makes_up(self, attempt):
        notify.listen()
        await up(redis.link())
        for name, value in {
            "a": b"junk",
            "b": b"[]",
            "c": b'{"until":"x"}',
            "d": b'{"until":null}',
        }.items():
            await redis.link().ask("HSET", redis.key("health"), name, value)
        health.forget()
        health._catch_up({})
        await eventually(lambda: "d" in health._records)

        assert set(health.resting(7)) & set("abcd") == {"d"}
        assert set(health.resting_from_redis()) & set("abcd") == {"d"}
        await redis.link().ask("DEL", redis.key("health"))
        await notify.close()
        await redis.close()

    async def test_are_not_misled_by_hints_that_make_no_sense(self, linked, attempt, caplog):
        for hint in ({}, {"id": "x"}, {"id": "x", "until": "soon"}, {"id": None, "until": [1]}):
            await publish({"topic": "health", **hint})
        await publish({"topic": "health", "id": "last", "until": time.time() + 9})
        await eventually(lambda: "last" in health.resting(7))

        assert not {"x", "None"} & set(health.resting(7))

    async def test_learn_for_themselves_without_redis(self, attempt, monkeypatch, settings):
        settings.REDIS_URL = "redis://127.0.0.1:9/0"

        assert rest_after(attempt, 401) == math.inf
        health.note_success(attempt)
        assert health.resting(7) == {}
        await redis.close()


async def publish(hint):
    await redis.link().ask("PUBLISH", redis.key("notify"), orjson.dumps(hint))


async def eventually(condition):
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.01)
