"""From a grant to the books: what a user gets, pays and can look up, through the public surface."""

from __future__ import annotations

import asyncio
import random

import pytest
from django.core.management import call_command

from airi_server.kernel.threads import in_thread
from llmrouter.configuration import tree
from tests.factories import gateway
from tests.fakes.upstream import DONE, answer, chunk, frames, refuse, stream
from tests.llmrouter.exchanges import opened

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
reconcile = in_thread(call_command)


async def all_closed(count):
    async with asyncio.timeout(10):
        while True:
            rows = await gateway.requests()
            if len(rows) == count and all(row.settled_at for row in rows):
                return rows
            await asyncio.sleep(0.05)


class TestPaidStream:
    async def test_a_granted_user_pays_exactly_what_the_upstream_reported(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream(frames("Hel", "lo", use=(2_000, 2_001))))

        answered = await served.post(PATH, STREAM, caller.key)

        assert answered.body.endswith(DONE)
        request_id = answered.headers["x-request-id"]
        balance = await served.get("/api/v1/flux", caller.key)
        assert balance.json() == {"userId": caller.user_id, "flux": 95}
        shown = (await served.get(f"/api/v1/flux/requests/{request_id}", caller.key)).json()
        assert (shown["state"], shown["outcome"], shown["fluxCharged"]) == (
            "settled", "completed", 5,
        )  # fmt: skip
        assert (shown["promptTokens"], shown["completionTokens"]) == (2_000, 2_001)
        newest = (await served.get("/api/v1/flux/history?limit=1", caller.key)).json()["records"][0]
        assert (newest["type"], newest["amount"]) == ("debit", 5)
        assert newest["metadata"]["requestId"] == request_id
        await reconcile("reconcile-usage")

    async def test_hanging_up_half_way_still_pays_and_reconciles(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("word" * 400)] * 20, pause_s=0.1, then="hang"))

        async with opened(served, caller.key, STREAM) as response:
            await response.content.readuntil(b"\n\n")
            await asyncio.sleep(0.3)
        (row,) = await all_closed(1)

        assert (row.outcome, row.usage_source) == ("client_gone", "estimated")
        assert 2 <= row.flux_charged <= 8
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (100 - row.flux_charged, 0)
        assert upstream.aborted == 1
        await reconcile("reconcile-usage")

    async def test_a_turn_of_ten_rounds_is_ten_requests(self, served, upstream):
        """The existing client: up to ten completions a turn, each billed on its own."""
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream())

        for _ in range(10):
            await served.post("/api/v1/openai/chat/completions", STREAM, caller.key)

        listed = (await served.get("/api/v1/flux/requests?limit=100", caller.key)).json()["records"]
        assert [one["fluxCharged"] for one in listed] == [1] * 10
        await reconcile("reconcile-usage")


class TestStorm:
    async def test_of_every_kind_of_end_leaves_the_books_in_order(self, served, upstream):
        """200 requests of 4 users, some of whom hang up; seeded, so that it can be replayed."""
        dice = random.Random(20260301)
        callers = [await gateway.caller(flux=flux) for flux in (30, 60, 1_000, 10_000)]
        quick = tree.Defaults(idle_timeout_ms=400, full_chain_timeout_ms=1_500)
        await gateway.places(
            (upstream.base_url, 1), (upstream.base_url, 1), defaults=quick, timeout_ms=700
        )
        ends = ["end", "reset", "hang"]

        async def step(request):
            if (await request.json()).get("stream"):
                parts = frames(*["word"] * dice.randrange(1, 6))
                kind = dice.choice([*ends, "end", "end"])
                cut = len(parts) if kind == "end" else dice.randrange(len(parts))
                made = stream(parts[:cut], pause_s=dice.random() / 20, then=kind)
            else:
                made = dice.choice([answer(after_s=dice.random() / 2), answer(), refuse(500)])
            return await made(request)

        async def call():
            caller, body = dice.choice(callers), dice.choice([BODY, STREAM])
            patience = dice.choice([0.1, 0.5, 30, 30, 30, 30])
            try:
                async with asyncio.timeout(patience):
                    return (await served.post(PATH, body, caller.key)).status
            except TimeoutError:
                return 0

        upstream.script(step)
        statuses = await asyncio.gather(*(call() for _ in range(200)))

        opened_rows = await all_closed(len(await gateway.requests()))
        assert set(statuses) <= {0, 200, 402, 502, 504}
        assert statuses.count(200) > 50
        assert statuses.count(0) > 10
        assert {row.state for row in opened_rows} == {"settled", "voided"}
        for caller in callers:
            account = await gateway.account(caller.user_id)
            assert account.held == 0
        await reconcile("reconcile-usage")
