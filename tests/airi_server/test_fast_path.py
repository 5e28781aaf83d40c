"""The fast path and Django's way give the same answers to the same requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from django.urls import get_resolver

from airi_server.kernel import hops
from airi_server.web import fast_path
from llmrouter.api.openai import create_chat_completion
from llmrouter.completions import operation as gateway_of_ours
from tests.airi_server.endpoints import operations, routes
from tests.factories import gateway
from tests.fakes.upstream import answer, chunk, hang, refuse, stream
from tests.lab.server import manage
from tests.llmrouter.exchanges import balance_is, closed, opened, voided

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

PATHS = (
    "/api/v1/openai/chat/completion",
    "/api/v1/openai/chat/completions",
    "/v1/chat/completions",
)
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = "from airi_server.web import fast_path; print(*sorted(fast_path.TAKEN))"
OWN = {"x-request-id", "date", "ratelimit-reset"}
"""Headers that name the exchange or the moment."""
CASES = {
    "plain": (answer(), BODY, {}),
    "streamed": (stream(), {**BODY, "stream": True}, {}),
    "with an idempotency key": (answer(), BODY, {"Idempotency-Key": "k-{way}"}),
    "with a bad idempotency key": (answer(), BODY, {"Idempotency-Key": "\xff"}),
    "behind a proxy": (answer(), BODY, {"X-Forwarded-For": "203.0.113.7"}),
    "from a page": (answer(), BODY, {"Origin": "http://localhost:5173"}),
    "of an unknown model": (answer(), {**BODY, "model": "none"}, {}),
    "without messages": (answer(), {"model": "auto"}, {}),
    "with a wrong key": (answer(), BODY, {"Authorization": "Bearer sk-airi-no"}),
    "without a key": (answer(), BODY, {"Authorization": ""}),
    "refused upstream": (refuse(400), BODY, {}),
    "with a query": (answer(), BODY, {"query": "?a=b"}),
    "within a trace": (answer(), BODY, {"traceparent": TRACE}),
    "from another installation": (answer(), BODY, {"x-airi-hops": "0123456789ab"}),
    "that has come back": (answer(), BODY, {"x-airi-hops": hops.own()}),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
async def test_both_ways_answer_alike(served, upstream, monkeypatch, case, path):
    caller = await gateway.caller(flux=1000)
    await gateway.route(upstream.base_url)
    step, body, given = CASES[case]
    found = {}
    for way in ("fast", "django"):
        taken = fast_path.PATHS if way == "fast" else frozenset()
        monkeypatch.setattr(fast_path, "TAKEN", taken)
        upstream.script(step)
        headers = {name: value.format(way=way) for name, value in given.items()}
        query = headers.pop("query", "")

        got = await served.post(path + query, body, caller.key, **headers)

        kept = sorted(
            (name.lower(), value) for name, value in got.headers.items() if name.lower() not in OWN
        )
        found[way] = (got.status, kept, got.body, got.cut)

    assert found["fast"] == found["django"]


async def test_the_load_goes_the_fast_way(served, upstream, monkeypatch):
    """Neither Django's request nor its resolver is made for a completion."""
    caller = await gateway.caller(flux=1000)
    await gateway.route(upstream.base_url)
    monkeypatch.setattr(fast_path, "TAKEN", fast_path.PATHS)

    def never(*_: object) -> None:
        raise AssertionError("not on the fast path")

    monkeypatch.setattr("airi_server.web.handler.ASGIRequest", never)
    monkeypatch.setattr("airi_server.web.handler.LeanASGIHandler.resolve_request", never)
    for path in PATHS:
        assert (await served.post(path, BODY, caller.key)).status == 200
    assert len(await gateway.requests()) == len(PATHS)


@pytest.mark.parametrize(("said", "taken"), [("on", fast_path.PATHS), ("off", frozenset())])
async def test_the_environment_decides(said, taken):
    ran = manage("shell", "-v", "0", "-c", SAID, AIRI_FAST_PATH=said)

    assert ran.stdout.split() == sorted(taken), ran.stderr


async def test_every_route_of_completions_goes_the_fast_way():
    routed = {
        route
        for route, pattern in routes(get_resolver().url_patterns, "/")
        if create_chat_completion in [each.view_func for each in operations(pattern)]
    }

    assert routed == {*PATHS} == {*fast_path.PATHS}


@pytest.mark.parametrize("path", PATHS)
class TestEveryPath:
    async def test_hands_on_the_trace_the_way_and_the_key(
        self, served, upstream, monkeypatch, path
    ):
        chat, calls = gateway_of_ours.chat, []

        async def noted(call):
            calls.append(call)
            return await chat(call)

        monkeypatch.setattr(gateway_of_ours, "chat", noted)
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url)
        headers = {"traceparent": TRACE, "x-airi-hops": "0123456789ab", "Idempotency-Key": "once"}

        first = await served.post(path, BODY, caller.key, **headers)
        again = await served.post(path, BODY, caller.key, **headers)

        (seen,) = upstream.seen
        assert seen.headers["x-airi-hops"] == f"0123456789ab, {hops.own()}"
        assert [call.traceparent for call in calls] == [TRACE, TRACE]
        (row,) = await closed()
        assert (str(row.id), row.client_key) == (first.headers["x-request-id"], "once")
        assert (again.status, again.body) == (200, first.body)
        for name in ("x-request-id", "x-airi-flux-charged"):
            assert again.headers[name] == first.headers[name]

    async def test_voids_a_call_whose_client_leaves_before_the_answer(self, served, upstream, path):
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url)
        upstream.script(hang())

        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await served.post(path, BODY, caller.key)

        async with asyncio.timeout(3):  # the upstream may go on for five seconds
            while not upstream.aborted:
                await asyncio.sleep(0.01)
        await closed()
        row = await voided(caller)
        assert (row.outcome, row.error_code) == ("client_gone", "CLIENT_GONE")

    async def test_settles_a_stream_whose_client_leaves_half_way(self, served, upstream, path):
        caller = await gateway.caller(flux=1000)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("word" * 400)] * 20, pause_s=0.05, then="hang"))

        async with opened(served, caller.key, path=path) as response:
            await response.content.readuntil(b"\n\n")

        (row,) = await closed()
        assert (row.state, row.outcome) == ("settled", "client_gone")
        assert row.flux_charged > 0
        await balance_is(caller, 1000 - row.flux_charged)
