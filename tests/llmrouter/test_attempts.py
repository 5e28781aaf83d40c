"""What one walk down a plan leaves behind: which calls were made, and what each of them came to."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time

import pytest

from airi_server.kernel.errors import DomainError
from llmrouter.configuration.routes import compile as compile_routes
from llmrouter.routing import failures, health
from llmrouter.routing.breakers import RULES
from llmrouter.routing.failover import Failover
from llmrouter.routing.failures import AttemptFailed, Blame, FailureRecord
from llmrouter.routing.planning import WELL, PlannedAs, Rank, plan
from tests.factories import llmrouter as routers

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("hot")]


def planned(*keys, others=0, caller="caller", **fields):
    """Return a plan over the keys of upstream `x`, in their order, and `others` with one each."""
    upstreams = [
        routers.upstream(id="x", keys=list(keys)),
        *(routers.upstream(id=f"y{n}", keys=[key(f"o{n}")]) for n in range(1, others + 1)),
    ]
    table = compile_routes(routers.chat_tree(m=routers.chat_model(*upstreams, **fields)), 1)
    return plan(table, "m", health.asking_for(caller, 1), lambda: 0.0)


@functools.cache
def key(key_id, *, sealed_for="m"):
    """Return the same key each time: one that is sealed again is another."""
    return routers.sealed_key(model=sealed_for, key_id=key_id)


def walking(caller="caller"):
    return Failover[str](caller, lambda: "what is asked")


async def says_hello(_attempt, authorization):
    return f"hello, {authorization}"


def failing(reason="500", *, status=500, blame=Blame.SICK, ends=False, after_s=0.0, wait_s=None):
    async def send(_attempt, _authorization):
        await asyncio.sleep(after_s)
        raise AttemptFailed(reason, status=status, blame=blame, ends=ends, wait_s=wait_s)

    return send


def fail(attempt, blame, *, caller, fingerprint="what else is asked"):
    failed = AttemptFailed("429", status=429, blame=blame)
    began = time.monotonic()
    health.note_failure(
        attempt, failed, caller=caller, fingerprint=lambda: fingerprint, began=began
    )


@pytest.fixture
def due(monkeypatch):
    """Return what opens the breaker of an attempt's target, and waits until it may be probed."""

    async def opened(attempt):
        rule = dataclasses.replace(RULES[Blame.AWAY], first_s=0.01)
        monkeypatch.setitem(RULES, Blame.AWAY, rule)
        for caller in ("c", "d"):
            fail(attempt, Blame.AWAY, caller=caller)
        await asyncio.sleep(0.02)

    return opened


async def test_a_failed_call_is_noted_with_its_place_its_reason_and_its_time():
    walk, began = walking(), time.monotonic()

    with pytest.raises(failures.UpstreamUnavailable):
        await walk.run(planned(key("k1")), failing(after_s=0.05))

    [noted] = walk.failures
    assert (noted.upstream, noted.key, noted.reason, noted.status) == ("x", "k1", "500", 500)
    assert noted.provider == planned(key("k1")).attempts[0].upstream.host
    assert 50 <= noted.duration_ms <= (time.monotonic() - began) * 1000 + 1


async def test_a_key_that_does_not_open_is_noted_and_passed_over():
    made = planned(key("k1", sealed_for="another"), key("k2"))
    walk = walking()

    answer = await walk.run(made, says_hello)

    assert (answer, walk.attempts) == ("hello, Bearer " + routers.SECRET, 1)
    host = made.attempts[0].upstream.host
    assert walk.failures == [FailureRecord("x", host, "k1", failures.DECRYPT, None, 0)]


class TestOrder:
    """Upstream `x` has k1, k2 and k3, `y1` has o1; k1 fails and nothing answers."""

    @pytest.mark.parametrize(
        ("blame", "reason", "status", "asked"),
        [
            (Blame.DEAD, "401", 401, ["k1", "k2", "k3"]),
            (Blame.DEAD, "400", 400, ["k1", "k2", "k3"]),
            (Blame.DOUBT, "403", 403, ["k1", "k2", "k3"]),
            (Blame.RATE, "429", 429, ["k1", "k2", "k3"]),
            (Blame.SICK, "500", 500, ["k1", "o1", "k2"]),
            (Blame.SICK, "bad_answer", 200, ["k1", "o1", "k2"]),
            (Blame.SICK, "timeout", None, ["k1", "o1", "k2"]),
            (Blame.SICK, "501", 501, ["k1", "o1", "k2"]),
            (Blame.AWAY, "connect", None, ["k1", "o1"]),
            (None, "timeout", None, ["k1", "o1", "k2"]),
            (None, "402", 402, ["k1", "k2", "k3"]),
        ],
    )
    async def test_is_by_whose_the_failure_is(self, blame, reason, status, asked):
        seen = []

        async def send(attempt, _authorization):
            seen.append(attempt.key.id)
            raise AttemptFailed(reason, status=status, blame=blame)

        with pytest.raises(DomainError):
            await walking().run(planned(key("k1"), key("k2"), key("k3"), others=1), send)

        assert seen == asked

    @pytest.mark.parametrize(("ends", "calls"), [(True, 1), (False, 2)])
    async def test_ends_with_a_failure_that_says_so(self, ends, calls):
        walk = walking()

        with pytest.raises(DomainError):
            await walk.run(planned(key("k1"), key("k2")), failing(ends=ends))

        assert walk.attempts == calls


class TestProbe:
    async def test_is_one_while_others_go_elsewhere(self, due):
        made = planned(key("k1"), others=1)
        await due(made.attempts[0])
        made = planned(key("k1"), others=1)
        assert [each.place for each in made.attempts] == [PlannedAs.OWN, PlannedAs.OWN]
        first, second, gate = walking("a"), walking("b"), asyncio.Event()

        async def waits(_attempt, _authorization):
            await gate.wait()
            return "answered"

        under_way = asyncio.create_task(first.run(made, waits))
        await asyncio.sleep(0.01)
        await second.run(made, says_hello)
        gate.set()
        await under_way

        assert first.attempt is not None
        assert second.attempt is not None
        assert (first.attempt.upstream.id, second.attempt.upstream.id) == ("x", "y1")
        assert health.asking_for("e", 1) is None

    async def test_is_tried_after_the_others_by_whom_it_was_not_given_to(self, due):
        made = planned(key("k1"), others=1)
        await due(made.attempts[0])
        assert health.try_acquire(made.attempts[0], "a", has_others=True) == WELL
        walk = walking("b")

        with pytest.raises(DomainError):
            await walk.run(made, failing())

        assert [each.key for each in walk.failures] == ["o1", "k1"]

    @pytest.mark.parametrize(("blame", "rank"), [(Blame.AWAY, Rank.LAST), (None, Rank.FIRST)])
    async def test_without_a_verdict_is_the_next_ones(self, due, monkeypatch, blame, rank):
        made = planned(key("k1"))
        await due(made.attempts[0])
        rule = dataclasses.replace(RULES[Blame.AWAY], first_s=60)
        monkeypatch.setitem(RULES, Blame.AWAY, rule)
        for breaker in health._scopes._scopes[
            made.attempts[0].upstream.target_id
        ].breakers.values():
            breaker.rule = rule

        with pytest.raises(DomainError):
            await walking("a").run(made, failing("connect", status=None, blame=blame))

        ask = health.asking_for("b", 1)
        assert ask is not None
        attempt = made.attempts[0]
        assert ask(attempt.upstream, attempt.key).rank is rank

    async def test_that_the_caller_itself_made_fail_proves_nothing(self, due):
        """Neither that it serves nor that it does not: the next one finds out."""
        made = planned(key("k1"))
        await due(made.attempts[0])

        async def refuses(_attempt, _authorization):
            raise failures.UpstreamRefused(400, "no", code=None, param=None)

        with pytest.raises(failures.UpstreamRefused):
            await walking("a").run(made, refuses)

        assert health._scopes.unwell
        assert health.try_acquire(made.attempts[0], "b", has_others=True) == WELL


class TestToldWait:
    async def test_is_the_shortest_that_was_said(self):
        waits = iter([40.0, 7.2])

        async def send(_attempt, _authorization):
            raise AttemptFailed("503", status=503, blame=Blame.SICK, wait_s=next(waits))

        with pytest.raises(failures.UpstreamUnavailable) as told:
            await walking().run(planned(key("k1"), others=1), send)

        assert told.value.retry_after_s == 8

    @pytest.mark.parametrize(
        ("blame", "wait_s", "told_s"),
        [
            (Blame.RATE, None, 5), (Blame.RATE, 40, 40), (Blame.RATE, -3, 1),
            (Blame.RATE, 86_400, 600), (Blame.DEAD, None, 10), (Blame.DEAD, 3, 3),
            (Blame.DOUBT, None, None), (Blame.SICK, None, None), (Blame.SICK, 30, 30),
        ],
    )  # fmt: skip
    async def test_is_what_was_said_or_the_rest_within_bounds(self, blame, wait_s, told_s):
        with pytest.raises(DomainError) as told:
            await walking().run(planned(key("k1")), failing("503", blame=blame, wait_s=wait_s))

        assert told.value.retry_after_s == told_s

    async def test_counts_what_was_refused_beside_what_failed(self):
        made = planned(key("k1"), others=1)
        first, second = made.attempts
        fail(first, Blame.DEAD, caller="caller")
        fail(second, Blame.RATE, caller="caller")
        walk = walking()

        with pytest.raises(failures.UpstreamRateLimited) as told:
            await walk.run(planned(key("k1"), others=1), says_hello)

        assert (walk.attempts, told.value.retry_after_s) == (0, 5)


async def test_the_providers_words_are_on_the_row_within_their_bound():
    async def send(_attempt, _authorization):
        raise AttemptFailed("500", status=500, blame=Blame.SICK, words="no " * 1000)

    walk = walking()
    with pytest.raises(DomainError):
        await walk.run(planned(key("k1")), send)

    assert walk.failures[0].row()["words"] == ("no " * 1000)[:500]
    assert "words" not in FailureRecord("x", "h", "k1", "500", 500, 1).row()


async def test_a_request_is_named_only_when_it_has_failed():
    named: list[int] = []

    def name():
        named.append(1)
        return "what is asked"

    walk = Failover[str]("caller", name)

    await walk.run(planned(key("k1")), says_hello)
    assert named == []

    with pytest.raises(DomainError):
        await walk.run(planned(key("k1")), failing())
    assert named == [1]


async def test_one_that_failed_decides_what_is_said_though_another_refuses():
    made = planned(key("k1"), others=1)
    fail(made.attempts[1], Blame.RATE, caller="caller")
    fail(made.attempts[0], Blame.SICK, caller="caller")
    made = planned(key("k1"), others=1)
    assert [each.place for each in made.attempts] == [PlannedAs.OWN, PlannedAs.BEHIND]
    walk = walking()

    with pytest.raises(failures.UpstreamUnavailable) as told:
        await walk.run(made, failing(status=500))

    assert told.value.details == {"triedKeys": 2, "triedUpstreams": 2, "lastStatusCode": 500}
