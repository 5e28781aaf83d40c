"""What a process holds against keys and targets, and how other instances hear of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
import pytest_asyncio

from airi_server.kernel import instance, pubsub, redis
from llmrouter.configuration.routes import compile as compile_routes
from llmrouter.routing import breakers, evidence, failures, health
from llmrouter.routing.breakers import RULES
from llmrouter.routing.evidence import BreakerState, name_of
from llmrouter.routing.failures import AttemptFailed, Blame
from llmrouter.routing.planning import Rank, plan
from tests.factories import llmrouter as routers

REVISION = 7
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
            (None, None),
            ("", None),
            ("soon", None),
            ("nan", None),
            ("inf", None),
            ("9" * 40, 1e16),
            ("Sun, 99 Mar 2026 12:00:00 GMT", None),
            ("Sun, 01 Mar 99999 12:00:00 GMT", None),
            ("\x00", None),
        ],
    )
    def test_reads_digits_and_dates_and_nothing_else(self, header, seconds):
        assert failures.seconds_of(header, now=NOW) == seconds


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
        REVISION,
    )
    yield plan(table, "m", None, lambda: 0.0).attempts[0]
    health.forget()


@pytest_asyncio.fixture
async def linked(attempt):
    """Both connections to Redis, up; this process routes by the revision."""
    pubsub.listen()
    await up(redis.link())
    await up(pubsub._subscribers.get())
    health.asking_for("anybody", REVISION)
    yield
    await redis.link().ask("DEL", redis.key("health"))
    await pubsub.close()
    await redis.close()


async def up(link):
    async with asyncio.timeout(5):
        while not link.is_up:
            link.dial()
            await asyncio.sleep(0.005)


def fail(attempt, blame=Blame.DEAD, caller="a", *, wait_s=None, reason="401", words=""):
    """Note a failure of a caller's only request; return how long it rests."""
    return health.note_failure(
        attempt,
        AttemptFailed(reason, status=401, blame=blame, wait_s=wait_s, words=words),
        caller=caller,
        fingerprint=lambda: f"what {caller} asks",
        began=time.monotonic(),
    )


def serve(attempt):
    health.note_success(attempt, "served", time.monotonic())


def rank(attempt, caller="new", revision=REVISION):
    ask = health.asking_for(caller, revision)
    return ask(attempt.upstream, attempt.key).rank if ask else Rank.FIRST


async def publish(hint):
    await redis.link().ask(
        "PUBLISH", redis.key("notify"), orjson.dumps({"topic": "health", **hint})
    )


async def eventually(condition):
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.01)


def told(attempt, blame=Blame.RATE, caller="a", **fields):
    """Return a failure as another instance tells it."""
    return {
        "by": "another", "revision": REVISION, "what": "failed", "scope": attempt.key.health_id,
        "blame": blame, "caller": name_of(caller), "fingerprint": caller, "age": 0.001,
        "took": 0.5, "asked": 60, "probe": False, "reason": "429", **fields,
    }  # fmt: skip


@pytest.mark.asyncio
class TestOneProcess:
    async def test_holds_each_failure_against_whom_it_blames(self, linked, attempt):
        assert fail(attempt, Blame.RATE, wait_s=40) == 40
        assert fail(attempt, Blame.AWAY) == 0
        assert fail(attempt, None) == 0

        assert set(health._scopes.unwell) == {attempt.key.health_id, attempt.upstream.target_id}
        other_key = attempt._replace(key=attempt.upstream.keys[1])
        assert (rank(attempt, "a"), rank(other_key, "a")) == (Rank.REFUSE, Rank.LAST)

    async def test_asks_nothing_while_all_is_well(self, linked, attempt):
        assert health.asking_for("a", REVISION) is None
        fail(attempt)
        assert health.asking_for("a", REVISION) is not None
        serve(attempt)
        assert health.asking_for("a", REVISION) is None

    async def test_a_success_counts_for_the_key_from_when_it_was_sent(self, linked, attempt):
        before = time.monotonic()
        fail(attempt)
        fail(attempt, Blame.AWAY)
        health.note_success(attempt, "b", before)

        assert health._scopes.unwell == {attempt.key.health_id}

    async def test_a_new_revision_wakes_everything(self, linked, attempt):
        fail(attempt)
        assert rank(attempt) is Rank.LAST

        assert health.asking_for("a", REVISION + 1) is None

    async def test_alerts_once_until_it_is_well_again(self, linked, attempt, caplog):
        for caller in "abc":
            fail(attempt, caller=caller)
        assert [record.message for record in caplog.records] == ["A provider refuses a key"]
        serve(attempt)
        await asyncio.sleep(0.001)
        fail(attempt)

        assert len(caplog.records) == 2
        assert (caplog.records[0].levelname, caplog.records[0].key) == ("ERROR", "k1")

    async def test_says_when_an_upstream_fails_for_several(self, linked, attempt, caplog):
        for caller in "abc":
            fail(attempt, Blame.AWAY, caller, reason="connect")

        [record] = caplog.records
        assert (record.levelname, record.message) == (
            "WARNING", "An upstream fails for several callers",
        )  # fmt: skip


@pytest.mark.asyncio
class TestInstances:
    async def test_hear_of_a_failure_and_of_its_end(self, linked, attempt):
        """Another instance is played by its messages, on the channel it would use."""
        await publish(told(attempt))
        await eventually(lambda: rank(attempt) is Rank.LAST)
        assert rank(attempt, "a") is Rank.REFUSE

        cleared = evidence.of_success(attempt.key.health_id, 0.0, 0.0)
        await publish({"by": "another", "revision": REVISION, **cleared})
        await eventually(lambda: rank(attempt, "a") is Rank.FIRST)

    async def test_open_together(self, linked, attempt):
        await publish(told(attempt, caller="b"))
        await eventually(lambda: rank(attempt, "b") is Rank.REFUSE)
        fail(attempt, Blame.RATE)

        await eventually(lambda: health.standings_from_redis(REVISION))
        [standing] = health.standings_from_redis(REVISION)[attempt.key.health_id]
        assert standing.is_open

    async def test_are_told(self, linked, attempt):
        heard: list[Any] = []
        handlers = pubsub._handlers["health"]
        handlers.append(heard.append)
        try:
            fail(attempt, Blame.RATE, wait_s=40)
            await eventually(lambda: heard)
            await eventually(lambda: health.standings_from_redis(REVISION))
            kept = health.standings_from_redis(REVISION)
            serve(attempt)
            await eventually(lambda: len(heard) == 2)
        finally:
            handlers.remove(heard.append)

        [standing] = kept[attempt.key.health_id]
        assert standing._replace(rest_s=0, since_s=0) == BreakerState(Blame.RATE, -1, 0, 0, "401")
        assert standing.rest_s == pytest.approx(40, abs=2)
        assert standing.since_s == pytest.approx(0, abs=2)
        assert [(each["what"], each["by"], each["revision"]) for each in heard] == [
            ("failed", instance.ID, REVISION), ("cleared", instance.ID, REVISION),
        ]  # fmt: skip
        assert "a" not in heard[0].values()
        await eventually(lambda: not health.standings_from_redis(REVISION))

    async def test_are_told_of_one_failure_a_second_of_each_caller(self, linked, attempt):
        heard: list[Any] = []
        handlers = pubsub._handlers["health"]
        handlers.append(heard.append)
        try:
            for _ in range(20):
                for caller in ("a", "b"):
                    fail(attempt, Blame.DOUBT, caller)
            await publish({"by": "another", "what": "woken", "scope": "last"})
            await eventually(lambda: heard and heard[-1]["what"] == "woken")
        finally:
            handlers.remove(heard.append)

        assert [each["what"] for each in heard] == ["failed", "failed", "woken"]

    async def test_are_answered_when_they_have_not_heard_of_a_success(self, linked, attempt):
        serve(attempt)
        heard: list[Any] = []
        handlers = pubsub._handlers["health"]
        handlers.append(heard.append)
        try:
            await publish(told(attempt, age=20.0))
            await eventually(lambda: len(heard) == 2)
        finally:
            handlers.remove(heard.append)

        assert (heard[1]["what"], heard[1]["scope"]) == ("cleared", attempt.key.health_id)
        assert 0 <= heard[1]["age"] < 5
        assert rank(attempt, "a") is Rank.FIRST

    async def test_keep_since_when_nobody_has_been_served_and_what_was_said(self, linked, attempt):
        """Whoever tells it: another instance, or this one when it has forgotten."""
        fail(attempt, words="no such key")
        await eventually(lambda: health.standings_from_redis(REVISION))
        await asyncio.sleep(0.05)
        health.forget()
        health.asking_for("a", REVISION)
        fail(attempt, caller="b", words="still no such key")

        def kept():
            [standing] = health.standings_from_redis(REVISION)[attempt.key.health_id]
            return standing

        await eventually(lambda: kept().words == "still no such key")
        assert kept().since_s >= 0.05
        assert [each.since_s for (each,) in health.own_standings().values()] < [kept().since_s]

        serve(attempt)
        await eventually(lambda: not health.standings_from_redis(REVISION))
        fail(attempt, caller="b")
        before = time.monotonic()
        await eventually(lambda: health.standings_from_redis(REVISION))
        assert kept().since_s < 0.05 + time.monotonic() - before

    async def test_say_that_a_key_was_refused_until_it_serves(self, linked, attempt, monkeypatch):
        """Its rest is long over, and nothing is held against it: it has failed all the same."""
        monkeypatch.setitem(RULES, Blame.DEAD, replace(RULES[Blame.DEAD], first_s=0.01))
        monkeypatch.setattr(breakers, "REMEMBERED_S", 0.01)
        fail(attempt)
        fail(attempt, Blame.RATE, wait_s=1)
        fail(attempt, Blame.SICK)
        await asyncio.sleep(0.05)

        standings = health.standings_from_redis(REVISION)
        assert [each.blame for each in standings[attempt.key.health_id] if not each.rest_s] == [
            Blame.DEAD
        ]
        assert attempt.upstream.target_id not in standings
        await eventually(lambda: rank(attempt) is Rank.FIRST)

        serve(attempt)
        await eventually(lambda: not health.standings_from_redis(REVISION))

    async def test_that_start_later_clear_what_has_lapsed_before(
        self, linked, attempt, monkeypatch
    ):
        monkeypatch.setitem(RULES, Blame.DEAD, replace(RULES[Blame.DEAD], first_s=0.01))
        fail(attempt)
        await asyncio.sleep(0.05)
        health.forget()
        health._catch_up({})
        await eventually(lambda: health._scopes.lapsed == {attempt.key.health_id})
        assert rank(attempt) is Rank.FIRST

        serve(attempt)
        await eventually(lambda: not health.standings_from_redis(REVISION))
        assert not health._scopes.lapsed

    async def test_learn_on_their_start_what_was_told_before(self, attempt):
        """A new instance: its connections come up after the first hint was due."""
        pubsub.listen()
        await up(redis.link())
        health.asking_for("x", REVISION)
        fail(attempt)
        fail(attempt, caller="b")
        await asyncio.wait_for(redis.link().send("PING"), 5)
        await pubsub.close()
        await redis.close()
        health.forget()

        pubsub.listen()
        await eventually(lambda: health._scopes.unwell)
        assert rank(attempt) is Rank.LAST
        assert rank(attempt, "a") is Rank.LAST  # it is not known who has failed
        await redis.link().ask("DEL", redis.key("health"))
        await pubsub.close()
        await redis.close()

    async def test_wait_as_long_as_redis_says_whatever_their_own_clocks_do(
        self, linked, attempt, monkeypatch
    ):
        fail(attempt, Blame.RATE, wait_s=40)
        await asyncio.wait_for(redis.link().send("PING"), 5)
        wrong = time.time() + 7200
        monkeypatch.setattr(time, "time", lambda: wrong)

        [standing] = health.standings_from_redis(REVISION)[attempt.key.health_id]
        assert standing.rest_s == pytest.approx(40, abs=2)

    async def test_hold_nothing_that_was_told_of_another_revision(self, linked, attempt):
        await publish(told(attempt, revision=REVISION - 1))
        fail(attempt, Blame.AWAY)
        await publish(told(attempt, revision=REVISION, scope="seen"))
        await eventually(lambda: "seen" in health._scopes.unwell)

        assert attempt.key.health_id not in health._scopes.unwell
        assert health.standings_from_redis(REVISION + 1) == {}

    async def test_wake_what_an_operator_has_seen_serve(self, linked, attempt):
        for blame in (Blame.DEAD, Blame.AWAY):
            fail(attempt, blame)
        # An operator has looked at it first: it was told before it is taken back.
        await eventually(lambda: len(health.standings_from_redis(REVISION)) == 2)
        await asyncio.to_thread(health.wake, attempt.key.health_id, attempt.upstream.target_id)
        assert rank(attempt, "a") is Rank.FIRST
        await eventually(lambda: not health.standings_from_redis(REVISION))

        fail(attempt)
        await publish({"by": "x", "what": "woken", "scope": attempt.key.health_id})
        await eventually(lambda: rank(attempt, "a") is Rank.FIRST)

    async def test_are_not_misled_by_what_redis_makes_up(self, linked, attempt):
        sense = orjson.dumps({"level": 0, "reason": "x", "revision": REVISION})
        now = int(time.time() * 1000)
        made_up: dict[str | bytes, bytes] = {
            "a": b"junk",
            "a:dead": b"[]",
            "b:dead": b"x y " + sense,
            "c:odd": b"%d %d %b" % (now, now + 9000, sense),
            "d:dead": b"%d %d {}" % (now, now + 9000),
            "e:dead": b"%d %d %b" % (now, now + 9000, sense),
            "f:dead": b"%d %d %b" % (now, now + 10**15, sense),
            b"\xff:dead": b"%d %d %b" % (now, now + 9000, sense),
        }
        for name, value in made_up.items():
            await redis.link().ask("HSET", redis.key("health"), name, value)
        health.forget()
        health._catch_up({})
        await eventually(lambda: health._scopes.unwell)

        assert health._scopes.unwell == {"e", "f"}
        kept = health.standings_from_redis(REVISION)
        assert set(kept) == {"e", "f"}
        assert kept["f"][0].rest_s == 600

    async def test_are_not_misled_by_hints_that_make_no_sense(self, linked, attempt, caplog):
        for hint in (
            {}, {"by": "x"}, {"by": "x", "what": "failed"}, told(attempt, blame="odd"),
            told(attempt, age="soon"), told(attempt, scope=[1]), {"by": "x", "what": "woken"},
            {"by": "x", "what": "cleared", "scope": "s", "age": None, "revision": REVISION},
        ):  # fmt: skip
            await publish(hint)
        await publish(told(attempt, scope="last"))
        await eventually(lambda: "last" in health._scopes.unwell)

        assert health._scopes.unwell == {"last"}

    async def test_learn_for_themselves_without_redis(self, attempt, settings):
        settings.REDIS_URL = "redis://127.0.0.1:9/0"
        health.asking_for("a", REVISION)

        fail(attempt)
        assert rank(attempt, "a") is Rank.REFUSE
        serve(attempt)
        assert rank(attempt, "a") is Rank.FIRST
        await redis.close()
