"""Resting keys as callers meet them, through the whole application."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from llmrouter.routing import health
from tests.factories import gateway
from tests.fakes.upstream import answer, hang, refuse

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.asyncio
class TestThroughTheGateway:
    async def test_a_refused_key_is_left_alone_until_a_revision_is_published(
        self, served, upstream
    ):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2))
        upstream.script(refuse(401), answer())
        for _ in range(3):
            assert (await served.post(PATH, BODY, caller.key)).status == 200
        assert [row.attempts for row in await gateway.requests()] == [2, 1, 1]

        await gateway.places((upstream.base_url, 2), timeout_ms=4_000)
        upstream.seen.clear()
        await served.post(PATH, BODY, caller.key)
        assert (await gateway.requests())[-1].upstream_key_id == "k1"

    async def test_all_keys_resting_is_refused_at_once_and_says_when_to_come_back(
        self, served, upstream
    ):
        caller = await gateway.caller(flux=100)
        for step, status, wait in [
            (refuse(429, headers={"Retry-After": "40"}), 503, "40"),
            (refuse(401), 502, "600"),
            (refuse(402), 502, "5"),
        ]:
            await gateway.route(upstream.base_url, name=f"m{wait}{status}")
            upstream.script(step)
            await served.post(PATH, BODY, caller.key)
            upstream.seen.clear()
            rows = len(await gateway.requests())

            response = await served.post(PATH, BODY, caller.key)

            assert (response.status, response.headers["Retry-After"]) == (status, wait)
            assert response.json()["details"]["triedKeys"] == 0
            assert upstream.seen == []
            assert len(await gateway.requests()) == rows  # nothing was held for the refused one
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (100, 0)

    async def test_a_tripped_key_is_probed_once_while_others_are_refused(
        self, served, upstream, monkeypatch
    ):
        monkeypatch.setattr(health, "FIRST_REST_S", 0.2)
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url)
        upstream.script(refuse(500))
        for _ in range(5):
            await served.post(PATH, BODY, caller.key)
        assert (await served.post(PATH, BODY, caller.key)).status == 502
        assert len(upstream.seen) == 5
        await asyncio.sleep(0.25)
        upstream.script(answer(after_s=0.2))
        upstream.seen.clear()

        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(20)))

        assert sorted(r.status for r in responses) == [200] + [502] * 19
        assert all("Retry-After" in r.headers for r in responses if r.status == 502)
        assert len(upstream.seen) == 1
        again = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(5)))
        assert {response.status for response in again} == {200}

    async def test_a_probe_without_a_verdict_is_given_to_the_next(
        self, served, upstream, monkeypatch
    ):
        """The prober's client leaves, or its request is itself at fault."""
        monkeypatch.setattr(health, "FIRST_REST_S", 0.1)
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url, timeout_ms=10_000)
        upstream.script(refuse(500))
        for _ in range(5):
            await served.post(PATH, BODY, caller.key)
        await asyncio.sleep(0.12)
        upstream.script(hang(), refuse(400), answer())

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await served.post(PATH, BODY, caller.key)
        await asyncio.sleep(1.3)
        fault = await served.post(PATH, BODY, caller.key)
        good = await served.post(PATH, BODY, caller.key)

        assert (fault.status, good.status) == (400, 200)

    async def test_an_upstream_that_outlasts_the_whole_chain_is_not_tripped(self, served, upstream):
        """A caller decides how long an answer gets, so it says nothing about the key."""
        from llmrouter.configuration import tree

        caller = await gateway.caller(flux=1000)
        quick = tree.Defaults(full_chain_timeout_ms=60)
        await gateway.places((upstream.base_url, 1), defaults=quick)
        upstream.script(hang())

        statuses = [(await served.post(PATH, BODY, caller.key)).status for _ in range(6)]

        assert statuses == [504] * 6
        assert len(upstream.seen) == 6
