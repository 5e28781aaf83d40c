"""What one walk down a plan leaves behind: which calls were made, and what each of them came to."""

from __future__ import annotations

import asyncio
import time

import pytest

from airi_server.kernel.errors import DomainError
from llmrouter.configuration import tree
from llmrouter.configuration.routes import compile as compile_routes
from llmrouter.routing import failures, health
from llmrouter.routing.attempts import Walk
from llmrouter.routing.failures import AttemptFailed, Failure
from llmrouter.routing.planning import plan
from tests.factories import llmrouter as routers

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("hot")]


def planned(*keys, **fields):
    """Return a plan over the keys of one upstream, in their order."""
    upstream = routers.upstream(id="x", keys=list(keys))
    table = compile_routes(routers.chat_tree(m=routers.chat_model(upstream, **fields)), 1)
    return plan(table, "m", health.resting(1), time.time(), lambda: 0.0)


def key(key_id, *, sealed_for="m"):
    return routers.sealed_key(model=sealed_for, key_id=key_id)


async def says_hello(_attempt, authorization):
    return f"hello, {authorization}"


def failing(reason="500", *, status=500, counts=True, after_s=0.0):
    async def send(_attempt, _authorization):
        await asyncio.sleep(after_s)
        raise AttemptFailed(reason, status=status, counts=counts)

    return send


@pytest.fixture
def rest(monkeypatch):
    """Return what has the key of an attempt rest, and waits until it may be tried again."""

    async def rested(attempt):
        monkeypatch.setattr(health, "FIRST_REST_S", 0.01)
        for _ in range(5):
            health.note_failure(attempt, AttemptFailed("500", status=500))
        await asyncio.sleep(0.02)
        # What fails from now on rests for longer than a test takes.
        monkeypatch.setattr(health, "FIRST_REST_S", 60)

    return rested


async def test_a_failed_call_is_noted_with_its_place_its_reason_and_its_time():
    walk, began = Walk[str](), time.perf_counter()

    with pytest.raises(failures.UpstreamUnavailable):
        await walk.run(planned(key("k1")), failing(after_s=0.05))

    [noted] = walk.failures
    assert (noted.upstream, noted.key, noted.reason, noted.status) == ("x", "k1", "500", 500)
    assert noted.provider == planned(key("k1")).attempts[0].upstream.host
    assert 50 <= noted.duration_ms <= (time.perf_counter() - began) * 1000 + 1


async def test_a_key_that_does_not_open_is_noted_and_passed_over():
    made = planned(key("k1", sealed_for="another"), key("k2"))
    walk = Walk[str]()

    answer = await walk.run(made, says_hello)

    assert (answer, walk.attempts) == ("hello, Bearer " + routers.SECRET, 1)
    host = made.attempts[0].upstream.host
    assert walk.failures == [Failure("x", host, "k1", failures.DECRYPT, None, 0)]


async def test_a_key_that_has_rested_is_tried_by_one_walk_of_the_same_plan(rest):
    made = planned(key("k1"))
    await rest(made.attempts[0])
    first, second, gate = Walk[str](), Walk[str](), asyncio.Event()

    async def waits(_attempt, _authorization):
        await gate.wait()
        return "answered"

    under_way = asyncio.create_task(first.run(made, waits))
    await asyncio.sleep(0.01)
    with pytest.raises(failures.UpstreamUnavailable):
        await second.run(made, says_hello)
    gate.set()

    assert (await under_way, first.attempts, second.attempts) == ("answered", 1, 0)


@pytest.mark.parametrize(("counts", "may_be_tried"), [(True, False), (False, True)])
async def test_a_probe_that_failed_without_a_verdict_is_the_next_ones(rest, counts, may_be_tried):
    made = planned(key("k1"))
    await rest(made.attempts[0])

    with pytest.raises(failures.UpstreamUnavailable):
        await Walk().run(made, failing(counts=counts))

    assert health.claim(made.attempts[0]) is may_be_tried


@pytest.mark.parametrize(
    ("reason", "status", "on_timeout", "calls"),
    [
        (failures.TIMEOUT, None, False, 1),
        (failures.CONNECT, None, False, 1),
        ("500", 500, False, 2),
        (failures.TIMEOUT, None, True, 2),
        ("500", 500, True, 2),
    ],
)
async def test_a_route_without_failover_on_timeouts_ends_at_the_first(
    reason, status, on_timeout, calls
):
    triggers = tree.Triggers(on_timeout=on_timeout)
    made = planned(key("k1"), key("k2"), fallback_triggers=triggers)
    walk = Walk[str]()

    with pytest.raises(DomainError):
        await walk.run(made, failing(reason, status=status))

    assert walk.attempts == calls


@pytest.mark.parametrize(("status", "calls"), [(None, 2), (200, 2), (429, 2), (418, 1), (501, 1)])
async def test_another_key_is_asked_unless_the_upstream_is_what_refuses(status, calls):
    """An error in a 200 says as little about the other keys as a broken connection."""
    walk = Walk[str]()

    with pytest.raises(DomainError):
        await walk.run(planned(key("k1"), key("k2")), failing("any", status=status))

    assert walk.attempts == calls


async def test_one_that_failed_decides_what_is_said_though_another_rests(rest):
    made = planned(key("k1"), key("k2"))
    await rest(made.attempts[0])
    assert health.claim(made.attempts[0])

    with pytest.raises(failures.UpstreamUnavailable) as told:
        await Walk().run(made, failing())

    assert told.value.details == {"triedKeys": 1, "triedUpstreams": 1, "lastStatusCode": 500}
