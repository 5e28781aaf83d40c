"""Where the walk ends: the caller's own fault, exhausted upstreams, a client that left."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from llmrouter.configuration import tree
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes.upstream import (
    answer,
    hang,
    refuse,
    stream,
)
from tests.llmrouter.exchanges import closed, voided

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOBODY = "http://127.0.0.1:9/v1"
AGAIN = tree.Triggers(ask_again_after_timeout=True)
QUICK = tree.Defaults(per_attempt_timeout_ms=300, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


class TestEnds:
    async def test_case_66_and_10_with_502_when_every_key_is_refused(
        self, served, upstream, counted
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url)
        upstream.script(refuse(401, message="sk-secret-0123456789"))

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 502
        assert response.json() == {
            "error": {"message": "Upstream unavailable", "type": "server_error", "param": None,
                      "code": "BAD_GATEWAY"},
            "message": "Upstream unavailable",
            "details": {"triedKeys": 2, "triedUpstreams": 2, "lastStatusCode": 401},
        }  # fmt: skip
        row = await voided(caller)
        assert (row.attempts, row.outcome, row.status) == (2, "failed", 502)
        assert len(counted["KEY_EXHAUSTED"]) == 2

    async def test_case_68_with_503_when_every_upstream_is_rate_limited(
        self, served, upstream, counted
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url)
        upstream.script(refuse(429))

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 503
        assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert response.json()["message"] == "Upstream rate-limited"
        assert int(response.headers["Retry-After"]) >= 1
        assert counted["SAME_STATUS"] == [{"provider": "127.0.0.1", "status_code": 429}]
        await voided(caller)

    async def test_case_69_and_76_the_last_failure_decides(self, served, upstream):
        caller = await gateway.caller()
        for failures, status, last in [
            ([refuse(429), refuse(500), hang()], 504, "timeout"),
            ([hang(), refuse(429), refuse(500)], 502, 500),
            ([refuse(500), refuse(429)], 503, 429),
            *(([refuse(code)], 502, code) for code in (401, 402, 403, 500, 502, 503, 504)),
            ([answer(b"<html>", content_type="text/html")], 502, 200),
        ]:
            await gateway.route(
                *[upstream.base_url] * len(failures), timeout_ms=200, fallback_triggers=AGAIN
            )
            upstream.script(*failures)
            response = await served.post(PATH, BODY, caller.key)
            assert (response.status, response.json()["details"]["lastStatusCode"]) == (status, last)
        await gateway.route(NOBODY)
        response = await served.post(PATH, BODY, caller.key)
        assert (response.status, response.json()["error"]["code"]) == (504, "GATEWAY_TIMEOUT")
        await voided(caller)

    async def test_after_three_calls_however_many_keys_there_are(self, served, upstream):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 4), (upstream.base_url, 4))
        upstream.script(refuse(500))

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 502
        assert len(upstream.seen) == 3

    @pytest.mark.parametrize("on_timeout", [False, True])
    async def test_with_the_first_timeout_where_the_route_says_so(
        self, served, upstream, on_timeout
    ):
        caller = await gateway.caller()
        triggers = tree.Triggers(on_timeout=on_timeout)
        for away in (upstream.base_url, NOBODY):
            await gateway.places(
                (away, 1), (upstream.base_url, 1), timeout_ms=200, fallback_triggers=triggers
            )
            upstream.script(*([hang()] if away == upstream.base_url else []), stream())

            response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

            assert response.status == (200 if on_timeout else 504)

    async def test_at_the_deadline_of_the_whole_chain(self, served, upstream):
        caller = await gateway.caller()
        quick = tree.Defaults(full_chain_timeout_ms=500)
        await gateway.places((upstream.base_url, 3), defaults=quick, timeout_ms=350)
        upstream.script(hang())

        response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert response.status == 504
        assert response.json()["details"] == {
            "triedKeys": 2, "triedUpstreams": 1, "lastStatusCode": "timeout",
        }  # fmt: skip
        row = await voided(caller)
        assert (row.attempts, [f["reason"] for f in row.failures]) == (2, ["timeout", "timeout"])
        assert row.duration_ms < 1_000

    async def test_with_the_callers_own_fault_at_once(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url)
        for status in (400, 404, 413, 422):
            upstream.seen.clear()
            told = {"error": {"message": "bad at https://x.example/a with sk-or-secret123",
                              "code": "context_length", "param": "messages"}}  # fmt: skip
            upstream.script(answer(told, status=status))

            for streamed in (False, True):
                response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

                assert response.status == status
                error = response.json()["error"]
                assert (error["code"], error["param"]) == ("context_length", "messages")
                assert error["message"] == "bad at … with …"
            assert len(upstream.seen) == 2
        row = await voided(caller)
        assert row.attempts == 1

    async def test_with_a_fault_that_explains_nothing(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        for body in (b"", b"{}", b'{"error":7}', b"[]", b'{"choices":[]}'):
            upstream.script(answer(body, status=400))

            response = await served.post(PATH, BODY, caller.key)

            assert (response.status, response.json()["error"]["code"]) == (400, "upstream_refused")
            assert response.json()["message"] == "The upstream refused the request."

    async def test_case_71_and_72_without_a_route(self, served, upstream):
        caller = await gateway.caller()

        response = await served.post(PATH, {**BODY, "model": "x"}, caller.key)
        assert (response.status, response.json()["error"]["code"]) == (503, "CONFIG_NOT_SET")

        await gateway.publish_tree(b=routers.chat_model(name="b"), a=routers.chat_model(name="a"))
        response = await served.post(PATH, {**BODY, "model": "x"}, caller.key)

        assert (response.status, response.json()["error"]["code"]) == (400, "unknown_model")
        assert response.json()["details"] == {"requested": "x", "available": ["a", "b"]}
        assert await gateway.requests() == []

    async def test_case_73_and_16_when_the_client_leaves_before_the_headers(self, served, upstream):
        caller = await gateway.caller(flux=20)
        await gateway.places((upstream.base_url, 2), timeout_ms=1_000)
        upstream.script(hang())

        for streamed in (False, True):
            before = upstream.aborted
            with suppress(TimeoutError):
                async with asyncio.timeout(0.4):
                    await served.post(PATH, {**BODY, "stream": streamed}, caller.key)
            async with asyncio.timeout(1.5):
                while upstream.aborted == before:
                    await asyncio.sleep(0.01)
            await closed(2 if streamed else 1)

        assert len(upstream.seen) == 2
        row = await voided(caller)
        assert (row.outcome, row.attempts, row.error_code) == ("client_gone", 1, "CLIENT_GONE")
