"""Requests that ask for another protocol: their bodies are bodies, never the next request."""

from __future__ import annotations

import asyncio
import logging

import pytest
import pytest_asyncio

from tests.airi_server.lines import chunked, line_to, request, told
from tests.factories import gateway
from tests.fakes.upstream import answer

pytestmark = pytest.mark.asyncio
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/v1/chat/completions", "/api/v1/openai/chat/completions", "/v1/models", "/v1/nothing",
    "/api/v1/flux", "/api/v1/keys", "/api/admin/flux-grants", "/api/nothing",
    "/admin/login/", "/static/none.css", "/app/chat", "/ws/chat", "/ws/v2/chat",
    "/ws/other", "/livez", "/nothing",
)  # fmt: skip
ASKING = (
    ("Connection: Upgrade", "Upgrade: foo"),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA"),
    ("Connection: keep-alive, upgrade", "Upgrade: websocket, foo"),
    ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ("Connection: upgrade", "Upgrade: websocket", "Upgrade: foo"),
    ("Proxy-Connection: upgrade", "Upgrade: foo"),
    ("Connection: x", "Connection: upgrade", "Upgrade: TLS/1.2"),
)  # fmt: skip
INNER = request("GET", "/admin/inner", "X-Forwarded-For: 10.0.0.1", "Cookie: sessionid=x")
FOLLOWING = request("GET", "/following")


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "airi_server.web.middleware")
    return caplog


@pytest_asyncio.fixture
async def place(served, upstream):
    """Return where a funded caller finds a model, and the key."""
    await gateway.route(upstream.base_url)
    caller = await gateway.caller(flux=1_000)
    return served.base_url, caller.key


async def exchange(base_url, method, path, asking, key, *, is_chunked, is_pipelined):
    """Send a request whose body is a request, in segments of their own, and one after it."""
    given = [*asking, f"Authorization: Bearer {key}"]
    if is_chunked:
        head = request(method, path, *given, "Transfer-Encoding: chunked")
        body = chunked(b"\r\n" * 9 + INNER)
    else:
        body = b"\r\n" * 9 + INNER
        head = request(method, path, *given, f"Content-Length: {len(body)}")
    before = request("GET", "/before") if is_pipelined else b""
    methods = ["GET", method, "GET"] if is_pipelined else [method, "GET"]
    async with line_to(base_url) as line:
        await line.send(before + head, body[:7], body[7:], FOLLOWING)
        return await line.answers(methods)


@pytest.mark.parametrize("asking", ASKING, ids=" ".join)
async def test_have_their_bodies_read(place, log, asking):
    """Head and body in segments of their own, every method, every path, chunked and not."""
    base_url, key = place
    turn = ASKING.index(asking)
    # What is asked for decides nothing that the framing would: of two neighbors each gets one.
    cases = [
        (method, path, (turn + m + p) % 2 == 0, (turn + m + p // 2) % 2 == 0)
        for m, method in enumerate(METHODS)
        for p, path in enumerate(PATHS)
    ]
    turns = asyncio.Semaphore(40)

    async def tried(method, path, is_chunked, is_pipelined):
        async with turns:
            return await exchange(
                base_url, method, path, asking, key,
                is_chunked=is_chunked, is_pipelined=is_pipelined,
            )  # fmt: skip

    found = await asyncio.gather(*(tried(*case) for case in cases))

    for case, answers in zip(cases, found, strict=True):
        if case[3]:
            assert (answers.pop(0).status, case) == (404, case)
        assert answers, case
        first, *rest = answers
        assert first.status < 500, (case, first)
        if first.headers.get("connection") != "close":
            assert [each.status for each in rest] == [404], (case, answers)
            assert b"No route matched GET /following" in rest[0].body, (case, rest)
    paths = await told(log, len(cases))
    assert not [each for each in paths if "inner" in each]
    assert [path for path in PATHS if not any(path in each for each in paths)] == ["/livez"]


@pytest.mark.parametrize("asking", ASKING[:3], ids=" ".join)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_of_completions_are_answered_and_charged_once(place, upstream, asking, is_chunked):
    base_url, key = place
    upstream.script(answer())
    body = b'{"messages":[{"role":"user","content":"' + INNER.replace(b"\r\n", b" ") + b'"}]}'
    given = [*asking, f"Authorization: Bearer {key}"]
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    head = request("POST", "/v1/chat/completions", *given, framing)
    sent = chunked(body) if is_chunked else body

    async with line_to(base_url) as line:
        for _ in range(3):
            await line.send(head, sent[:9], sent[9:])
            answered = await line.answer()
            assert answered is not None
            assert answered.status == 200

    assert len(upstream.seen) == len(await gateway.requests()) == 3
