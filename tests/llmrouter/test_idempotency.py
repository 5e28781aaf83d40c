"""`Idempotency-Key`: one effect, however often and however closely the request is repeated."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from billing.requests import MAX_RESULT_BYTES
from tests.factories import billing, gateway
from tests.fakes.upstream import DONE, answer, completion, hang, refuse, stream

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
FREE = {
    "flux_per_1k_input": 0, "flux_per_1k_output": 0, "flux_per_1k_cached": 0,
    "flux_per_request": 0,
}  # fmt: skip


async def post(served, caller, key="once", body=BODY):
    return await served.post(PATH, body, caller.key, **{"Idempotency-Key": key})


class TestRepeated:
    async def test_fifty_at_once_have_one_effect(self, served, upstream):
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url)
        upstream.script(answer(after_s=0.4))

        responses = await asyncio.gather(*(post(served, caller) for _ in range(50)))
        again = await post(served, caller)

        assert sorted(r.status for r in responses) == [200] + [409] * 49
        for refused in (r for r in responses if r.status == 409):
            assert refused.headers["Retry-After"] == "1"
            assert refused.json()["error"]["code"] == "IN_FLIGHT"
            assert refused.json()["error"]["type"] == "conflict_error"
        first = next(r for r in responses if r.status == 200)
        assert (again.status, again.body) == (200, orjson.dumps(completion()))
        for name in ("x-request-id", "x-airi-flux-charged", "content-type"):
            assert again.headers[name] == first.headers[name]
        assert len(upstream.seen) == 1
        (row,) = await gateway.requests()
        assert (str(row.id), row.client_key) == (first.headers["x-request-id"], "once")
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (999, 0)

    async def test_with_another_body_is_refused(self, served, upstream):
        caller, other = await gateway.caller(), await gateway.caller()
        await gateway.route(upstream.base_url)
        await post(served, caller)

        changed = await post(served, caller, body={**BODY, "temperature": 1})
        spaced = await served.send(
            "POST", PATH, key=caller.key, data=orjson.dumps(BODY) + b" ",
            headers={"Idempotency-Key": "once"},
        )  # fmt: skip

        assert [changed.status, spaced.status] == [422, 422]
        assert changed.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"
        assert (await post(served, other)).status == 200
        assert (await post(served, caller, key="twice")).status == 200

    async def test_after_a_stream_names_what_it_did(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(stream(pause_s=0.1))
        streamed = {**BODY, "stream": True}
        first = asyncio.create_task(post(served, caller, body=streamed))
        await asyncio.sleep(0.25)

        meanwhile = await post(served, caller, body=streamed)
        finished = await first
        afterwards = await post(served, caller, body=streamed)

        assert finished.body.endswith(DONE)
        assert (meanwhile.status, meanwhile.json()["error"]["code"]) == (409, "IN_FLIGHT")
        assert (afterwards.status, afterwards.json()["error"]["code"]) == (409, "ALREADY_PROCESSED")
        assert afterwards.json()["details"] == {
            "requestId": finished.headers["x-request-id"], "fluxCharged": 1,
        }  # fmt: skip
        assert len(upstream.seen) == 1

    async def test_after_an_answer_that_cost_nothing(self, served, upstream):
        caller = await gateway.caller(flux=0)
        await gateway.route(upstream.base_url)
        await billing.new_price(**FREE)

        first, second = await post(served, caller), await post(served, caller)

        assert (first.status, first.headers["x-airi-flux-charged"]) == (200, "0")
        assert (second.status, second.body) == (200, first.body)
        for name in ("x-request-id", "x-airi-flux-charged", "content-type"):
            assert second.headers[name] == first.headers[name]
        assert len(upstream.seen) == 1

    async def test_after_an_answer_too_large_to_keep(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(answer(completion("x" * 70_000)))

        first, second = await post(served, caller), await post(served, caller)

        assert (first.status, second.status) == (200, 409)
        assert second.json()["details"]["fluxCharged"] == 1

    async def test_after_the_largest_answer_that_is_kept(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        rest = MAX_RESULT_BYTES - len(orjson.dumps(completion("")))
        upstream.script(answer(completion("x" * rest)))

        first, second = await post(served, caller), await post(served, caller)

        assert len(first.body) == MAX_RESULT_BYTES
        assert (second.status, second.body) == (200, first.body)

    async def test_after_a_failure_tries_again(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(refuse(500), refuse(400), hang(), answer())

        statuses = [(await post(served, caller)).status for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await post(served, caller)
        async with asyncio.timeout(10):
            while [row.state for row in await gateway.requests()] != ["voided"] * 3:
                await asyncio.sleep(0.02)
        last = await post(served, caller)

        assert (statuses, last.status) == ([502, 400], 200)
        rows = await gateway.requests()
        assert [row.state for row in rows] == ["voided"] * 3 + ["settled"]
        assert len(await gateway.debits(caller.user_id)) == 1

    async def test_after_a_402_tries_again(self, served, upstream):
        from billing import ledger

        caller = await gateway.caller(flux=0)
        await gateway.route(upstream.base_url)
        assert (await post(served, caller)).status == 402

        from airi_server.kernel.threads import in_thread

        await in_thread(ledger.grant)(
            user_id=caller.user_id, amount=50, request_id="g", description="t", by="t",
            at=gateway.NOW,
        )  # fmt: skip
        assert (await post(served, caller)).status == 200


class TestKey:
    async def test_is_1_to_255_visible_ascii_characters(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        for key in ("", "x" * 256, "with space", "tab\there", "ünïcode"):
            response = await post(served, caller, key=key)
            assert (response.status, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
        for key in ("x", "x" * 255, "!~'\"%_\\"):
            assert (await post(served, caller, key=key)).status == 200
        assert len(upstream.seen) == 3

    async def test_of_a_client_cannot_be_one_of_the_servers(self, served, upstream):
        """Case I4: the client's key is no ledger key."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await post(served, caller, key="test-grant")
        await post(served, caller, key="llm:1")

        debits = await gateway.debits(caller.user_id)
        assert {str(debit.request_id)[:4] for debit in debits} == {"llm:"}
        assert len({debit.request_id for debit in debits}) == 2
