"""Plain completions through the whole application, over real sockets."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from airi_server.kernel import database, redis
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, refuse, stream

pytestmark = pytest.mark.asyncio
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"


class TestChat:
    async def test_answers_with_the_bytes_of_the_upstream_and_charges_them(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 200
        assert response.body == orjson.dumps(completion())
        assert response.headers["x-airi-flux-charged"] == "1"
        (row,) = await gateway.requests()
        assert str(row.id) == response.headers["x-request-id"]
        assert (row.state, row.flux_charged, row.prompt_tokens) == ("settled", 1, 120)
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (99, 0)
        (entry,) = await gateway.debits(caller.user_id)
        assert (entry.request_id, entry.description) == (f"llm:{row.id}", "llm_request")

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_its_row_says_who_answered_and_when(self, served, upstream, streamed):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream(pause_s=0.02) if streamed else answer(after_s=0.05))

        await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

        (row,) = await gateway.requests()
        assert (row.upstream_key_id, row.attempts, row.status) == ("k1", 1, 200)
        assert row.upstream is not None
        assert (row.outcome, row.stream, row.failures) == ("completed", streamed, None)
        assert 0 < (row.ttft_ms or 0) <= (row.duration_ms or 0)

    async def test_is_two_round_trips_and_no_redis_command(self, served, upstream, still):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await served.post(PATH, BODY, caller.key)
        await still()
        trips, commands = database.round_trips, redis.commands_sent

        await served.post(PATH, BODY, caller.key)

        assert database.round_trips - trips == 2
        assert redis.commands_sent - commands == 0

    async def test_fails_over_and_charges_once(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url)
        upstream.script(refuse(500), answer())

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 200
        (row,) = await gateway.requests()
        assert (row.attempts, row.flux_charged) == (2, 1)
        assert (row.failures or [{}])[0]["reason"] == "500"

    async def test_twenty_on_a_balance_for_one_charge_one(self, served, upstream):
        caller = await gateway.caller(flux=5)
        await gateway.route(upstream.base_url)
        upstream.script(answer(after_s=0.2))

        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(20)))

        assert sorted(r.status for r in responses) == [200] + [402] * 19
        assert len(upstream.seen) == 1
