"""Keys and upstreams that are not well, as callers meet them, through the whole application."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from llmrouter.configuration import tree
from llmrouter.routing import health, scopes
from llmrouter.routing.breakers import RULES
from llmrouter.routing.failures import Blame
from tests.factories import gateway
from tests.fakes.upstream import answer, hang, refuse, stream
from tests.llmrouter.exchanges import closed

PATH = "/v1/chat/completions"


def asking(text="hi", **fields):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def poisoned(fault, good):
    """Answer everybody but who sends poison."""

    async def step(request):
        asked = await request.json()
        is_poison = asked["messages"][0]["content"].startswith("poison")
        return await (fault if is_poison else good)(request)

    return step


@pytest.fixture
def quick(monkeypatch):
    """Have two callers' failures count at once, and what they open rest for a moment."""
    monkeypatch.setattr(scopes, "LONGEST_QUIET_S", 0.01)
    for blame in (Blame.SICK, Blame.DOUBT):
        monkeypatch.setitem(RULES, blame, dataclasses.replace(RULES[blame], first_s=0.3))


async def fail_for_two(served, **fields):
    """Have two new callers fail by different requests; return the statuses."""
    statuses = []
    for text in ("one", "another"):
        caller = await gateway.caller()
        statuses.append((await served.post(PATH, asking(text, **fields), caller.key)).status)
        await asyncio.sleep(0.02)
    return statuses


@pytest.mark.asyncio
class TestOneCaller:
    """Whatever one caller makes an upstream say, the others are served."""

    @pytest.mark.parametrize(
        "fault",
        [
            refuse(402),
            refuse(403, message="flagged by moderation"),
            refuse(429, headers={"Retry-After": "60"}),
            refuse(500),
            refuse(503),
            refuse(409),
            answer(b"<html>", content_type="text/html"),
            answer({"error": {"message": "this model takes no images"}}),
        ],
        ids=["402", "403", "429", "500", "503", "409", "page", "error in a 200"],
    )
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_fails_alone(self, served, upstream, monkeypatch, fault, streamed):
        monkeypatch.setattr(scopes, "LONGEST_QUIET_S", 0.01)
        one, other, new = [await gateway.caller() for _ in range(3)]
        await gateway.route(upstream.base_url)
        upstream.script(poisoned(fault, stream() if streamed else answer()))
        assert (await served.post(PATH, asking(stream=streamed), other.key)).status == 200

        told = []
        for number in range(6):
            poison = asking(f"poison {number}", stream=streamed)
            told.append((await served.post(PATH, poison, one.key)).status)
            innocent = asking(f"innocent {number}", stream=streamed)
            assert (await served.post(PATH, innocent, other.key)).status == 200
            await asyncio.sleep(0.005)
        for number in range(6, 14):
            poison = asking(f"poison {number}", stream=streamed)
            told.append((await served.post(PATH, poison, one.key)).status)
        stranger = await served.post(PATH, asking("new", stream=streamed), new.key)

        assert stranger.status == 200
        assert set(told) <= {400, 502, 503}

    async def test_that_is_one_prompt_of_many_is_told_what_the_provider_says_to_wait(
        self, served, upstream
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(refuse(503, headers={"Retry-After": "30"}))

        response = await served.post(PATH, asking(), caller.key)

        assert (response.status, response.headers["Retry-After"]) == (502, "30")

    async def test_slow_plain_answers_blame_nobody(self, served, upstream):
        one, other = await gateway.caller(), await gateway.caller()
        await gateway.places((upstream.base_url, 1), timeout_ms=300)
        upstream.script(hang())
        slow = await asyncio.gather(*(served.post(PATH, asking(str(n)), one.key) for n in range(7)))
        upstream.script(answer())

        quick = await served.post(PATH, asking(), other.key)

        assert {response.status for response in slow} == {504}
        assert quick.status == 200
        assert health._scopes.unwell == set()

    async def test_an_upstream_that_outlasts_the_whole_chain_is_not_blamed(self, served, upstream):
        """A caller decides how long an answer gets."""
        caller = await gateway.caller(flux=1000)
        short = tree.Defaults(answer_timeout_ms=60)
        await gateway.places((upstream.base_url, 1), defaults=short)
        upstream.script(hang())

        statuses = [(await served.post(PATH, asking(str(n)), caller.key)).status for n in range(6)]

        assert statuses == [504] * 6
        assert len(upstream.seen) == 6


@pytest.mark.asyncio
class TestSeveralCallers:
    async def test_a_dead_key_comes_last_until_a_revision_is_published(self, served, upstream):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2))
        upstream.script(refuse(401), answer())
        for _ in range(3):
            assert (await served.post(PATH, asking(), caller.key)).status == 200
        assert [row.attempts for row in await gateway.requests()] == [2, 1, 1]

        await gateway.places((upstream.base_url, 2), timeout_ms=4_000)
        upstream.seen.clear()
        await served.post(PATH, asking(), caller.key)
        assert (await gateway.requests())[-1].upstream_key_id == "k1"

    async def test_who_has_failed_by_the_only_key_is_refused_and_told_for_how_long(
        self, served, upstream
    ):
        caller, other = await gateway.caller(flux=100), await gateway.caller()
        for step, status, wait in [
            (refuse(429, headers={"Retry-After": "40"}), 503, "40"),
            (refuse(401), 502, "10"),
        ]:
            await gateway.route(upstream.base_url, name=f"m{wait}{status}")
            upstream.script(step)
            first = await served.post(PATH, asking(), caller.key)
            assert (first.status, first.headers["Retry-After"]) == (status, wait)
            upstream.seen.clear()
            rows = len(await gateway.requests())

            response = await served.post(PATH, asking(), caller.key)

            assert (response.status, response.headers["Retry-After"]) == (status, wait)
            assert response.json()["details"]["triedKeys"] == 0
            assert upstream.seen == []
            assert len(await gateway.requests()) == rows  # nothing was held for the refused one
            upstream.script(answer())
            assert (await served.post(PATH, asking(), other.key)).status == 200
            assert (await served.post(PATH, asking(), caller.key)).status == 200
        account = await gateway.account(caller.user_id)
        assert account.held == 0

    async def test_three_keys_of_a_dead_upstream_do_not_use_up_the_attempts(self, served, upstream):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 3), (upstream.base_url, 1))
        upstream.script(refuse(500), answer())

        assert (await served.post(PATH, asking(), caller.key)).status == 200
        [row] = await gateway.requests()
        assert (row.attempts, row.upstream_key_id) == (2, "k4")

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_an_outage_is_tried_by_one_while_the_others_are_served_elsewhere(
        self, served, upstream, quick, streamed
    ):
        await gateway.route(upstream.base_url, upstream.base_url)
        good = stream() if streamed else answer()
        upstream.script(refuse(500), good, refuse(500), good, good)
        assert await fail_for_two(served, stream=streamed) == [200, 200]
        caller = await gateway.caller()
        await served.post(PATH, asking(stream=streamed), caller.key)
        assert [row.attempts for row in await closed(3)] == [2, 2, 1]
        await asyncio.sleep(0.31)

        gate, arrived = asyncio.Event(), asyncio.Event()

        async def waits(request):
            arrived.set()
            await gate.wait()
            return await good(request)

        upstream.script(waits, good)
        probe = asyncio.create_task(served.post(PATH, asking(stream=streamed), caller.key))
        await arrived.wait()
        others = [await served.post(PATH, asking(stream=streamed), caller.key) for _ in range(3)]
        gate.set()
        assert {(await probe).status, *(each.status for each in others)} == {200}
        by = [row.upstream for row in await closed(7)][3:]
        assert sorted(by) == ["127.0.0.1", *["127.0.0.1-2"] * 3]

        await served.post(PATH, asking(stream=streamed), caller.key)
        assert (await closed(8))[-1].upstream == "127.0.0.1"

    async def test_an_outage_of_everything_is_tried_a_little_and_over_with_the_first_success(
        self, served, upstream, quick
    ):
        callers = [await gateway.caller() for _ in range(12)]
        await gateway.route(upstream.base_url)
        upstream.script(refuse(500))
        assert await fail_for_two(served) == [502, 502]
        upstream.seen.clear()
        upstream.script(refuse(500))

        responses = await asyncio.gather(
            *(served.post(PATH, asking(str(n)), each.key) for n, each in enumerate(callers))
        )

        assert {response.status for response in responses} == {502}
        assert len(upstream.seen) in (4, 5)
        refused = [each for each in responses if each.json()["details"]["triedKeys"] == 0]
        assert len(refused) == 12 - len(upstream.seen)
        assert {each.headers["Retry-After"] for each in refused} == {"1"}

        upstream.script(answer())
        await asyncio.sleep(0.7)
        assert (await served.post(PATH, asking(), callers[0].key)).status == 200
        again = [await served.post(PATH, asking(), each.key) for each in callers]
        assert {response.status for response in again} == {200}

    async def test_streams_that_never_begin_open_it_too(self, served, upstream, quick):
        await gateway.places((upstream.base_url, 1), timeout_ms=200)
        upstream.script(hang())

        assert await fail_for_two(served, stream=True) == [504, 504]

        ask = health.asking_for("new", health._revision or 0)
        assert ask is not None

    async def test_a_probe_without_a_verdict_is_given_to_the_next(self, served, upstream, quick):
        """The prober's client leaves, or its request is itself at fault."""
        await gateway.route(upstream.base_url, timeout_ms=10_000)
        upstream.script(refuse(500))
        await fail_for_two(served)
        await asyncio.sleep(0.31)
        caller = await gateway.caller()
        upstream.script(hang(), refuse(400), answer())

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await served.post(PATH, asking(), caller.key)
        async with asyncio.timeout(10):
            while {row.state for row in await gateway.requests()} != {"voided"}:
                await asyncio.sleep(0.02)
        fault = await served.post(PATH, asking(), caller.key)
        good = await served.post(PATH, asking(), caller.key)

        assert (fault.status, good.status) == (400, 200)
