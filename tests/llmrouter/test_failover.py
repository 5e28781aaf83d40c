"""One request, several upstreams: which failure moves on, and what the client is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace

from airi_server.kernel.threads import in_thread
from llmrouter import publishing, telemetry, tree
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes import raw
from tests.fakes.raw import RawUpstream
from tests.fakes.upstream import (
    DONE,
    ScriptedUpstream,
    answer,
    chunk,
    completion,
    hang,
    refuse,
    stream,
)

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOBODY = "http://127.0.0.1:9/v1"
QUICK = tree.Defaults(per_attempt_timeout_ms=300, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


class Counted(list[Any]):
    """Stands for a counter: (amount, labels) of everything added."""

    def add(self, amount, labels=None):
        if amount:
            self.append(labels)


@pytest.fixture
def counted(monkeypatch):
    """The router's counters, as if an exporter were configured."""
    names = ("FALLBACKS", "UPSTREAM_ERRORS", "KEY_EXHAUSTED", "SAME_STATUS", "DECRYPT_FAILURES")
    counters = {name: Counted() for name in names}
    for name, counter in counters.items():
        monkeypatch.setattr(telemetry, name, counter)
    monkeypatch.setattr(telemetry._exporting, "tracer", trace.NoOpTracer())
    return counters


async def voided(caller):
    """Assert that nothing was charged and nothing is held; return the newest row."""
    row = (await gateway.requests())[-1]
    assert (row.state, row.flux_charged, row.usage_source) == ("voided", 0, "none")
    account = await gateway.account(caller.user_id)
    assert account.held == 0
    assert await gateway.debits(caller.user_id) == []
    return row


class TestMovesOn:
    async def test_case_64_to_the_next_key_after_a_401(self, served, upstream, counted):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2))
        upstream.script(refuse(401), answer())

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 200
        assert counted["FALLBACKS"] == [
            {"provider": "127.0.0.1", "from_key": "k1", "reason": "401"}
        ]
        assert counted["UPSTREAM_ERRORS"] == [{"provider": "127.0.0.1", "status_code": 401}]
        assert counted["KEY_EXHAUSTED"] == []
        (row,) = await gateway.requests()
        assert (row.attempts, row.upstream_key_id, row.flux_charged) == (2, "k2", 1)
        assert [(f["key"], f["reason"]) for f in row.failures or ()] == [("k1", "401")]

    async def test_to_the_next_upstream(self, served, upstream):
        caller = await gateway.caller()
        for failure in [
            refuse(402), refuse(403), refuse(429), refuse(500), refuse(503), refuse(418),
            answer(b"<html>", content_type="text/html"),
            answer({"error": {"message": "overloaded"}}),
            answer(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
            answer(b"", status=302, headers={"Location": "http://127.0.0.1:9/"}),
            answer(b""), answer(b"[]"), answer(b"{"), hang(),
        ]:  # fmt: skip
            await gateway.route(upstream.base_url, upstream.base_url, timeout_ms=300)
            upstream.script(failure, answer())

            response = await served.post(PATH, BODY, caller.key)

            assert (response.status, response.json()) == (200, completion())
        assert {row.attempts for row in await gateway.requests()} == {2}
        assert {seen.path for seen in upstream.seen} == {"/v1/chat/completions"}

    async def test_of_streams_before_their_first_frame(self, served, upstream):
        """Error objects, pages and plain answers in place of a stream are no stream."""
        caller = await gateway.caller(flux=1000)
        failed = b'data: {"error":{"message":"overloaded","code":502}}\n\n'
        failures = [
            stream([failed, DONE]),
            stream([b": wait\n\n", failed]),
            stream([]),
            answer(),
            answer(b"<html>", content_type="text/html"),
            stream([chunk("a")], headers={"Content-Encoding": "gzip"}),
            stream([b": wait\n\n"], then="reset"),
            stream([b": wait\n\n"], then="hang"),
            refuse(500),
        ]
        for failure in failures:
            await gateway.places(
                (upstream.base_url, 1), (upstream.base_url, 1), defaults=QUICK, timeout_ms=300
            )
            upstream.script(failure, stream())

            response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

            assert response.status == 200
            assert response.body.endswith(DONE)
            assert b"overloaded" not in response.body
        rows = await gateway.requests()
        assert {(row.attempts, row.flux_charged) for row in rows} == {(2, 1)}

    async def test_never_after_the_first_byte(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url)
        upstream.script(stream([chunk("a")], then="reset"), stream())

        response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert response.cut
        assert len(upstream.seen) == 1

    async def test_a_status_that_is_no_trigger_gives_up_that_upstream_only(self, served, upstream):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2), (upstream.base_url, 1))
        upstream.script(refuse(418), answer())

        await served.post(PATH, BODY, caller.key)

        (row,) = await gateway.requests()
        assert (row.attempts, row.upstream_key_id) == (2, "k3")

    async def test_a_key_that_does_not_open_is_skipped_and_counted(
        self, served, upstream, counted, monkeypatch
    ):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2))
        await served.post(PATH, BODY, caller.key)
        sealed = await in_thread(_ciphertext)(0)
        _spoil(monkeypatch, {sealed})

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 200
        assert (await gateway.requests())[-1].upstream_key_id == "k2"
        assert counted["DECRYPT_FAILURES"] == [{"provider": "127.0.0.1", "key_entry_id": "k1"}]

        _spoil(monkeypatch, {sealed, await in_thread(_ciphertext)(1)})
        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 503
        assert response.json()["error"]["code"] == "DECRYPT_FAILED"
        assert (await gateway.requests())[-1].state == "voided"


def _ciphertext(index):
    return publishing.current_tree().llm.models["chat-default"].upstreams[0].keys[index].ciphertext


def _spoil(monkeypatch, lost):
    from llmrouter import envelope

    opened = envelope.open_sealed

    def open_sealed(sealed, **context):
        if sealed in lost:
            raise envelope.CannotOpen("lost")
        return opened(sealed, **context)

    monkeypatch.setattr(envelope, "open_sealed", open_sealed)


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
            await gateway.route(*[upstream.base_url] * len(failures), timeout_ms=200)
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

    async def test_at_the_deadline_of_the_whole_chain(self, served, upstream):
        caller = await gateway.caller()
        quick = tree.Defaults(full_chain_timeout_ms=500)
        await gateway.places((upstream.base_url, 3), defaults=quick, timeout_ms=350)
        upstream.script(hang())

        response = await served.post(PATH, BODY, caller.key)

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
        for body in (b"", b"<html>" * 50, b"\xff\xfe", b'{"error":7}', b'["x"]', b"x" * 300_000):
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
            await _closed(2 if streamed else 1)

        assert len(upstream.seen) == 2
        row = await voided(caller)
        assert (row.outcome, row.attempts, row.error_code) == ("client_gone", 1, "CLIENT_GONE")


async def _closed(count):
    async with asyncio.timeout(3):
        while True:
            rows = await gateway.requests()
            if len(rows) == count and all(row.settled_at for row in rows):
                return
            await asyncio.sleep(0.02)


class TestConfigReads:
    async def test_case_74_a_copy_is_used_until_something_is_published(
        self, served, upstream, monkeypatch
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        loads = Counted()
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
        good = raw.response(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}')
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
        from llmrouter import upstream as client

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

    async def test_a_body_that_stalls(self, served, upstream):
        caller = await gateway.caller()
        stalled = raw.says(raw.response(b"{", length=100), then="hang")
        async with RawUpstream(stalled) as broken:
            await gateway.places((broken.base_url, 1), (upstream.base_url, 1), defaults=QUICK)

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
