"""One request, several upstreams: which failure moves on, and what the client is told."""

from __future__ import annotations

import pytest

from airi_server.kernel.threads import in_thread
from llmrouter.configuration import publishing, tree
from tests.factories import gateway
from tests.fakes.upstream import (
    DONE,
    answer,
    chunk,
    completion,
    refuse,
    stream,
)

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NOBODY = "http://127.0.0.1:9/v1"
QUICK = tree.Defaults(
    per_attempt_timeout_ms=300,
    first_event_idle_ms=300,
    idle_timeout_ms=300,
    full_chain_timeout_ms=3_000,
)


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
            answer(b""), answer(b"[]"), answer(b"{"),
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
    from airi_server.kernel import sealing

    opened = sealing.open_sealed

    def open_sealed(sealed, **context):
        if sealed in lost:
            raise sealing.CannotOpen("lost")
        return opened(sealed, **context)

    monkeypatch.setattr(sealing, "open_sealed", open_sealed)
