"""A stream begins when something is generated: until then the next upstream is asked."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import aiohttp
import pytest

from airi_server.kernel import hops
from llmrouter.completions import streaming
from llmrouter.configuration import tree
from tests.factories import gateway
from tests.fakes.upstream import (
    DONE,
    answer,
    chunk,
    completion,
    encode,
    frames,
    hang,
    refuse,
    stream,
    usage,
    usage_chunk,
)
from tests.llmrouter.exchanges import PATH, STREAM, closed, interruption
from tests.llmrouter.test_recognition import BAD, COMMENT, ROLE

pytestmark = pytest.mark.asyncio
PLAIN = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
NO_ANSWERS = {
    "empty": {},
    "no choices": {"choices": [], "usage": usage()},
    "a detail": {"detail": "Internal Server Error"},
    "object: error": {"object": "error", "message": "no"},
    "code and msg": {"code": 20015, "msg": "no"},
    "empty and unfinished": {"choices": [{"message": {"content": ""}}]},
}


@pytest.fixture
def beats(monkeypatch):
    """Let a stream be looked at ten times a second."""
    monkeypatch.setattr(streaming, "BEAT_S", 0.1)


class TestNothingGenerated:
    async def test_costs_nothing_and_the_next_upstream_is_asked(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, upstream.base_url + "/other")
        steps = []
        for bad in BAD.values():
            steps += [stream([bad]), stream(frames("hello"))]
        upstream.script(*steps)

        answers = [await served.post(PATH, STREAM, caller.key) for _ in BAD]

        assert {answered.status for answered in answers} == {200}
        assert all(b"hello" in answered.body and not answered.cut for answered in answers)
        assert len(upstream.seen) == 2 * len(BAD)

    async def test_costs_nothing_where_there_is_no_other(self, served, upstream):
        caller = await gateway.caller(flux=100)
        for number, bad in enumerate(BAD.values()):
            await gateway.route(upstream.base_url, name=f"m{number}")
            upstream.script(stream([bad]))
            answered = await served.post(PATH, {**STREAM, "model": f"m{number}"}, caller.key)
            assert (answered.status, answered.json()["error"]["code"]) == (502, "BAD_GATEWAY")

        rows = await closed(len(BAD))
        assert {(row.state, row.flux_charged) for row in rows} == {("voided", 0)}
        assert (await gateway.account(caller.user_id)).held == 0

    @pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
    async def test_is_no_plain_answer_either(self, served, upstream, body):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, upstream.base_url + "/other")
        upstream.script(answer(body), answer())

        answered = await served.post(PATH, PLAIN, caller.key)

        assert (answered.status, len(upstream.seen)) == (200, 2)
        (row,) = await closed()
        assert row.failures[0]["reason"] == "bad_answer"


class TestWaiting:
    async def test_an_upstream_that_talks_is_alive(self, served, upstream, beats):
        """It outlives the limit on heads, and its client hears something meanwhile."""
        caller = await gateway.caller(flux=100)
        defaults = tree.Defaults(full_chain_timeout_ms=300, first_event_idle_ms=400)
        await gateway.places((upstream.base_url, 1), defaults=defaults)
        upstream.script(stream([*[COMMENT] * 10, *frames("answer")], pause_s=0.1))

        answered = await served.post(PATH, STREAM, caller.key)

        assert (answered.status, answered.cut) == (200, False)
        assert answered.body.count(b": ping\n\n") >= 2
        assert COMMENT not in answered.body
        assert answered.body.endswith(DONE)
        (row,) = await closed()
        assert (row.outcome, row.usage_source) == ("completed", "reported")

    async def test_silence_before_the_first_event_has_a_limit_of_its_own(self, served, upstream):
        caller = await gateway.caller(flux=100)
        defaults = tree.Defaults(first_event_idle_ms=200)
        await gateway.places((upstream.base_url, 1), defaults=defaults)
        upstream.script(stream([COMMENT], then="hang"))

        answered = await served.post(PATH, STREAM, caller.key)

        assert answered.status in (502, 504)
        (row,) = await closed()
        assert (row.state, row.failures[0]["reason"]) == ("voided", "timeout")

    async def test_silence_after_it_has_the_shorter_one(self, served, upstream):
        caller = await gateway.caller(flux=100)
        defaults = tree.Defaults(first_event_idle_ms=60_000, idle_timeout_ms=200)
        await gateway.places((upstream.base_url, 1), defaults=defaults)
        upstream.script(stream([chunk("a")], then="hang"))

        async with asyncio.timeout(10):
            answered = await served.post(PATH, STREAM, caller.key)

        assert answered.cut
        (row,) = await closed()
        assert row.outcome == "upstream_stalled"

    async def test_until_the_head_has_left_a_refusal_keeps_its_status(
        self, served, upstream, beats
    ):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(refuse(400, message="too long"))

        answered = await served.post(PATH, STREAM, caller.key)

        assert (answered.status, answered.json()["error"]["message"]) == (400, "too long")

    async def test_behind_it_failover_goes_on(self, served, upstream, beats):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, upstream.base_url + "/other")
        upstream.script(stream([*[COMMENT] * 4, ROLE], pause_s=0.1), stream(frames("hello")))

        answered = await served.post(PATH, STREAM, caller.key)

        assert (answered.status, answered.cut) == (200, False)
        assert answered.body.startswith(b": ping\n\n")
        assert b"hello" in answered.body
        assert answered.body.endswith(DONE)

    async def test_behind_it_a_failure_is_an_error_frame_and_a_cut(self, served, upstream, beats):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([*[COMMENT] * 4, ROLE], pause_s=0.1))

        answered = await served.post(PATH, STREAM, caller.key)

        assert (answered.status, answered.cut) == (200, True)
        assert interruption(answered.body)["code"] == "BAD_GATEWAY"
        (row,) = await closed()
        assert (row.state, row.flux_charged) == ("voided", 0)

    async def test_a_silent_stream_is_kept_awake(self, served, upstream, beats):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a"), chunk("", finish="stop"), DONE], pause_s=0.5))

        answered = await served.post(PATH, STREAM, caller.key)

        assert answered.body.startswith(chunk("a") + b": ping\n\n")
        assert not answered.cut

    async def test_a_stream_that_goes_on_is_left_alone(self, served, upstream, beats):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a")] * 20 + frames("b"), pause_s=0.05))

        answered = await served.post(PATH, STREAM, caller.key)

        assert b"ping" not in answered.body


class TestPlainAnswer:
    async def test_may_take_longer_than_a_stream_may_for_its_head(self, served, upstream):
        caller = await gateway.caller(flux=100)
        defaults = tree.Defaults(per_attempt_timeout_ms=100, full_chain_timeout_ms=100)
        await gateway.places((upstream.base_url, 1), defaults=defaults, timeout_ms=None)
        upstream.script(answer(after_s=0.5))

        assert (await served.post(PATH, PLAIN, caller.key)).status == 200

    @pytest.mark.parametrize(("again", "calls"), [(False, 1), (True, 2)])
    async def test_that_takes_too_long_is_asked_for_elsewhere_only_if_said_so(
        self, served, upstream, again, calls
    ):
        """The first upstream may still be at work on it, and bill for it."""
        caller = await gateway.caller(flux=100)
        triggers = tree.Triggers(ask_again_after_timeout=again)
        await gateway.route(
            upstream.base_url, upstream.base_url + "/other", timeout_ms=200,
            fallback_triggers=triggers,
        )  # fmt: skip
        upstream.script(hang(), answer())

        answered = await served.post(PATH, PLAIN, caller.key)

        assert (answered.status, len(upstream.seen)) == ((200, 2) if again else (504, calls))

    async def test_ends_at_the_limit_of_all_attempts(self, served, upstream):
        caller = await gateway.caller(flux=100)
        defaults = tree.Defaults(answer_timeout_ms=200)
        await gateway.places((upstream.base_url, 1), defaults=defaults, timeout_ms=None)
        upstream.script(hang())

        answered = await served.post(PATH, PLAIN, caller.key)

        assert answered.status == 504
        assert (await closed())[0].state == "voided"


WHOLE = b"".join(frames("hello"))


class TestCodings:
    @pytest.mark.parametrize("named", ["identity", "Identity", "none", "", "identity, identity"])
    async def test_a_header_that_names_none_is_none(self, served, upstream, named):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        headers = {"content-encoding": named}
        upstream.script(answer(headers=headers), stream(headers=headers))

        plain = await served.post(PATH, PLAIN, caller.key)
        streamed = await served.post(PATH, STREAM, caller.key)

        assert (plain.status, streamed.status, streamed.cut) == (200, 200, False)

    @pytest.mark.parametrize(
        ("named", "code"),
        [
            ("gzip", gzip.compress), ("GZIP", gzip.compress), ("x-gzip", gzip.compress),
            ("deflate", zlib.compress), ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ],
    )  # fmt: skip
    async def test_what_can_be_undone_is(self, served, upstream, named, code):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        headers = {"content-encoding": named}
        coded = code(WHOLE)
        pieces = [coded[at : at + 7] for at in range(0, len(coded), 7)]
        upstream.script(
            answer(code(encode(completion("hello"))), headers=headers),
            stream(pieces, headers=headers),
        )

        plain = await served.post(PATH, PLAIN, caller.key)
        streamed = await served.post(PATH, STREAM, caller.key)

        assert plain.json() == completion("hello")
        assert b"hello" in streamed.body
        assert streamed.body.endswith(DONE)
        assert {row.usage_source for row in await closed(2)} == {"reported"}

    @pytest.mark.parametrize(
        ("named", "body"),
        [
            ("br", b"x"), ("gzip, gzip", gzip.compress(gzip.compress(WHOLE))), ("gzip", WHOLE),
            ("gzip", gzip.compress(WHOLE)[:20]),
            ("gzip", gzip.compress(b'{"choices":[{"message":{"content":"' + b"0" * 40_000_000)),
        ],
        ids=["another", "two", "a lie", "cut off", "a bomb"],
    )  # fmt: skip
    async def test_the_rest_is_a_bad_answer(self, served, upstream, named, body):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        headers = {"content-encoding": named}
        upstream.script(answer(body, headers=headers), stream([body], headers=headers))

        plain = await served.post(PATH, PLAIN, caller.key)
        streamed = await served.post(PATH, STREAM, caller.key)

        assert (plain.status, streamed.status) == (502, 502)
        assert {row.flux_charged for row in await closed(2)} == {0}


class TestHops:
    async def test_a_request_that_comes_back_is_refused(self, served, upstream):
        """An upstream that leads to this server: its own name is in the header."""
        caller = await gateway.caller(flux=100)
        await gateway.route(served.base_url + "/v1")

        headers = {"x-airi-hops": f"0123456789ab, {hops.own()}"}
        looped = await served.post(PATH, PLAIN, caller.key, **headers)

        assert (looped.status, looped.json()["error"]["code"]) == (508, "LOOP_DETECTED")
        assert await gateway.requests() == []

    async def test_another_installation_is_no_loop(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)

        passed = await served.post(PATH, PLAIN, caller.key, **{"x-airi-hops": "0123456789ab"})

        assert passed.status == 200
        assert upstream.seen[0].headers["x-airi-hops"] == f"0123456789ab, {hops.own()}"

    async def test_a_long_way_is_refused_too(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)

        far = await served.post(PATH, PLAIN, caller.key, **{"x-airi-hops": "a,b,c,d,e"})

        assert (far.status, upstream.seen) == (508, [])


async def test_the_order_of_a_client_that_hangs_up_while_waiting_is_void(served, upstream, beats):
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(stream([COMMENT] * 100, pause_s=0.1))
    async with aiohttp.ClientSession() as session:
        url = served.base_url + PATH
        async with session.post(url, json=STREAM, headers=served.headers(caller.key)) as response:
            await response.content.readuntil(b"\n\n")
            response.close()

    (row,) = await closed()
    assert (row.state, row.outcome, row.flux_charged) == ("voided", "client_gone", 0)


async def test_usage_alone_before_the_text_is_read(served, upstream):
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(stream([usage_chunk(90, 0), chunk("a"), usage_chunk(90, 30), DONE]))

    await served.post(PATH, STREAM, caller.key)

    (row,) = await closed()
    assert (row.prompt_tokens, row.completion_tokens) == (90, 30)
