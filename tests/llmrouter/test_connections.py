"""Connections to upstreams, and the configuration that names them: kept, closed, replaced."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from billing import requests
from llmrouter.configuration import publishing, tree
from tests.factories import gateway
from tests.fakes import raw
from tests.fakes.raw import RawUpstream
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer,
    completion,
    stream,
)

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOBODY = "http://127.0.0.1:9/v1"
QUICK = tree.Defaults(per_attempt_timeout_ms=300, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


class TestConfigReads:
    async def test_case_74_a_copy_is_used_until_something_is_published(
        self, served, upstream, monkeypatch
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        loads: list[None] = []
        load = publishing.ROUTER.load

        async def counting():
            loads.append(None)
            return await load()

        monkeypatch.setattr(publishing.ROUTER, "load", counting)
        await served.post(PATH, BODY, caller.key)
        await served.post(PATH, BODY, caller.key)
        assert len(loads) == 1

        await gateway.route(upstream.base_url, upstream.base_url)
        await served.post(PATH, BODY, caller.key)
        await served.post(PATH, BODY, caller.key)
        assert len(loads) == 2


class TestConnections:
    async def test_one_that_the_upstream_closes_between_requests_is_no_error(self, served):
        """The keep-alive race: the upstream hangs up just as the next request is written."""
        good = raw.response(b'{"choices":[{"message":{"content":"hi"}}]}')
        caller = await gateway.caller()
        for ending in ("close", "reset"):
            async with RawUpstream(
                raw.says(good), raw.says(then=ending), raw.says(good)
            ) as upstream:
                await gateway.route(upstream.base_url)

                first = await served.post(PATH, BODY, caller.key)
                second = await served.post(PATH, BODY, caller.key)

                assert (first.status, second.status) == (200, 200)
                assert (upstream.connections, upstream.requests) == (2, 3)
        assert [row.attempts for row in await gateway.requests()] == [1] * 4

    async def test_one_that_breaks_on_its_first_request_is_a_failure(self, served):
        """The upstream may be at work on it: it is not sent to it twice."""
        caller = await gateway.caller()
        for ending in ("close", "reset"):
            async with RawUpstream(raw.says(then=ending)) as upstream:
                await gateway.route(upstream.base_url)

                response = await served.post(PATH, BODY, caller.key)

                assert response.status == 504
                assert upstream.requests == 1

    async def test_bytes_that_are_no_http(self, served):
        caller = await gateway.caller()
        for words in [
            raw.response(b"{}", length=500),
            raw.response(b'{"choices":[]}xx', length=5),
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
            raw.stream_head() + b"zz\r\n",
        ]:
            async with RawUpstream(raw.says(words, then="close")) as broken:
                async with ScriptedUpstream() as good:
                    await gateway.route(broken.base_url, good.base_url)
                    response = await served.post(PATH, BODY, caller.key)
                    assert (response.status, response.json()) == (200, completion())
        rows = await gateway.requests()
        assert {(row.attempts, row.flux_charged) for row in rows} == {(2, 1)}

    async def test_an_endless_body_is_cut_off(self, served, monkeypatch):
        from llmrouter.upstream import client

        monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 500_000)
        monkeypatch.setattr(client.read, "__kwdefaults__", {"at_most": 500_000})
        caller = await gateway.caller()
        sent = 0

        async def endless(_reader, writer):
            nonlocal sent
            writer.write(raw.stream_head())
            with suppress(ConnectionError):
                while True:
                    writer.write(raw.piece(b" " * 65_536))
                    await writer.drain()
                    sent += 65_536

        async with RawUpstream(endless) as broken:
            await gateway.route(broken.base_url)
            response = await served.post(PATH, BODY, caller.key)

        assert response.status == 502
        assert sent < 10 * 2**20

    async def test_of_a_stream_that_fails_on_our_side_is_let_go(self, served, monkeypatch):
        caller = await gateway.caller()
        is_left = asyncio.Event()

        async def endless(reader, writer):
            begun = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
            writer.write(raw.stream_head() + raw.piece(begun))
            await reader.read()
            is_left.set()

        async def fails(*_args, **_kwargs):
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr(requests, "mark", fails)
        async with RawUpstream(endless) as server:
            await gateway.route(server.base_url)
            response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

            assert response.status == 500
            async with asyncio.timeout(5):
                await is_left.wait()

    async def test_a_body_that_stalls(self, served, upstream):
        caller = await gateway.caller()
        stalled = raw.says(raw.response(b"{", length=100), then="hang")
        async with RawUpstream(stalled) as broken:
            await gateway.places(
                (broken.base_url, 1),
                (upstream.base_url, 1),
                timeout_ms=300,
                fallback_triggers=tree.Triggers(ask_again_after_timeout=True),
            )

            response = await served.post(PATH, BODY, caller.key)

        assert response.status == 200
        (row,) = await gateway.requests()
        assert [f["reason"] for f in row.failures or ()] == ["timeout"]


async def test_nothing_of_the_upstream_but_its_body_reaches_the_client(served, upstream):
    """Case 18."""
    caller = await gateway.caller()
    await gateway.route(upstream.base_url)
    theirs = {"set-cookie": "a=b", "x-secret": "1", "x-request-id": "theirs", "server": "theirs"}
    upstream.script(
        answer(headers=theirs), stream(headers=theirs),
        answer(content_type="text/html", headers=theirs),
    )  # fmt: skip

    plain = await served.post(PATH, BODY, caller.key)
    streamed = await served.post(PATH, {**BODY, "stream": True}, caller.key)
    page = await served.post(PATH, BODY, caller.key)

    for response in (plain, streamed, page):
        assert not {"set-cookie", "x-secret"} & {name.lower() for name in response.headers}
        assert "theirs" not in response.headers.values()
        assert response.headers["cache-control"].startswith("no-store")
    assert plain.headers["content-type"] == "application/json"
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert page.headers["content-type"] == "application/json"
