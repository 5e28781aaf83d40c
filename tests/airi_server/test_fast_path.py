"""The fast path and Django's way give the same answers to the same requests."""

from __future__ import annotations

import pytest

from airi_server import fast_path
from tests.factories import gateway
from tests.fakes.upstream import answer, refuse, stream

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

PATHS = sorted(fast_path.PATHS)
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
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
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
async def test_both_ways_answer_alike(served, upstream, monkeypatch, case, path):
    caller = await gateway.caller(flux=1000)
    await gateway.route(upstream.base_url)
    step, body, given = CASES[case]
    found = {}
    for way in ("fast", "django"):
        if way == "django":
            monkeypatch.setattr(fast_path, "PATHS", frozenset())
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

    def never(*_: object) -> None:
        raise AssertionError("not on the fast path")

    monkeypatch.setattr("airi_server.entry.ASGIRequest", never)
    monkeypatch.setattr("airi_server.entry.LeanASGIHandler.resolve_request", never)
    for path in PATHS:
        assert (await served.post(path, BODY, caller.key)).status == 200
    assert len(await gateway.requests()) == len(PATHS)
