"""What operators read of a failed attempt: the provider's own words, and nothing that is secret."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.routing import provider_words
from llmrouter.routing.failures import BAD_ANSWER, BROKEN_OFF
from tests.factories import gateway
from tests.fakes.upstream import DONE, answer, chunk, completion, frames, refuse, stream
from tests.llmrouter.exchanges import closed

PATH = "/v1/chat/completions"
PROMPT = "my diary of the third of May, which is nobody's business"
BODY = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
STREAM = {**BODY, "stream": True}
REQUEST = orjson.dumps([BODY["messages"], None]).decode()
SAID = "Incorrect API key provided"
PAGE = f"<html><head><title>{SAID}</title><style>.x</style></head><body><p>nginx &amp; co"


def kept(body, content_type="", *, authorization="Bearer sk-1", is_error=True):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"content-type": content_type}
    return provider_words.kept(
        raw, headers, request=REQUEST, authorization=authorization, is_error=is_error
    )


class TestKept:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"error": {"message": SAID}}, SAID),
            (SAID.encode(), SAID),
            (PAGE.encode(), f"{SAID} nginx & co"),
            (b"data: " + orjson.dumps({"error": {"message": SAID}}) + b"\n\n", SAID),
            (b"event: error\r\ndata: " + orjson.dumps({"message": SAID}) + b"\r\n\r\n", SAID),
            ({"success": False, "why": SAID}, f'{{"success":false,"why":"{SAID}"}}'),
            ({}, ""),
            (b"", ""),
        ],
    )
    def test_whatever_the_shape(self, body, words):
        assert kept(body) == words

    def test_of_a_2xx_only_what_says_that_it_is_an_error(self):
        """JSON without an error may be a piece of an answer."""
        assert kept({"choices": [{"message": {"content": SAID}}]}, is_error=False) == ""
        assert kept({"code": 20015, "msg": SAID}, is_error=False) == SAID

    @pytest.mark.parametrize(
        "secret",
        ["sk-airi-0123456789abcdef", "Bearer abc.def", "odd/key+with=signs", "org-Ab3dEf6hIjKl",
         "proj_1a2b3c4d5e", "acct_1032D82eZvKYlo2C", "arn:aws:iam::123456789012:user/x",
         "123456789012", "boss@example.com"],
    )  # fmt: skip
    def test_without_keys_and_accounts(self, secret):
        words = kept({"error": f"Bad: {secret}, no"}, authorization="Bearer odd/key+with=signs")

        assert secret not in words
        assert words.startswith("Bad: ")

    @pytest.mark.parametrize("name", ["account", "Organization ID", "tenant_id", "subscription"])
    def test_without_the_account_that_is_named(self, name):
        account = "0f3c2b1a-1111-2222-3333-444455556666"

        assert account not in kept({"error": f"The {name}: '{account}' is over its quota"})

    @pytest.mark.parametrize(
        "quoted",
        [PROMPT, PROMPT.upper() + PROMPT, f"{PROMPT[5:]}{PROMPT[:40]}"],
    )
    def test_without_what_the_caller_wrote(self, quoted):
        words = kept({"error": f"Flagged: '{quoted}' by policy 7"})

        assert "nobody's business" not in words
        assert words.startswith("Flagged: '")
        assert words.endswith("' by policy 7")

    def test_escaped_as_json_has_it_too(self):
        written = 'she said "I never was there" and\nleft by the back door at seven'
        request = orjson.dumps([{"content": written}]).decode()

        words = provider_words.of_text(f"no: {written}!", request=request, authorization="")

        assert "back door" not in words
        assert words == "no: …!"

    @given(st.binary(max_size=300), st.text(max_size=80), st.booleans())
    def test_is_one_line_of_500_characters_of_anything(self, body, request, is_error):
        words = provider_words.kept(body, {}, request=request, authorization="", is_error=is_error)

        assert len(words) <= 500
        assert words.isprintable()

    @given(st.text(max_size=60), st.text(min_size=40, max_size=60), st.text(max_size=60))
    def test_no_longer_quotation_stays(self, before, quoted, after):
        words = provider_words.without_quotations(before + quoted + after, quoted)

        assert len(quoted) < 36 or quoted not in words


@pytest.mark.asyncio
class TestRows:
    """Every attempt that failed with a body says on the row what the provider said."""

    @pytest.mark.parametrize(
        ("step", "reason"),
        [
            (refuse(401, message=SAID), "401"),
            (answer(PAGE.encode(), status=502, content_type="text/html"), "502"),
            (answer(SAID.encode(), status=500, content_type="text/plain"), "500"),
            (refuse(400, message=SAID.replace("API key", "request")), "400"),
            (refuse(403, message="Flagged by moderation"), "403"),
            (answer({"detail": SAID}), BAD_ANSWER),
            (answer(PAGE.encode(), content_type="text/html"), BAD_ANSWER),
        ],
    )
    async def test_of_plain_answers(self, served, upstream, step, reason):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(step)

        answered = await served.post(PATH, BODY, caller.key)

        assert answered.status >= 400
        (row,) = await closed()
        (failure,) = row.failures
        assert (failure["reason"], failure["key"]) == (reason, "k1")
        assert failure["words"][:9] in (SAID[:9], "Flagged b")
        assert failure["durationMs"] >= 0

    @pytest.mark.parametrize(
        "step",
        [
            stream([b"data: " + orjson.dumps({"error": {"message": SAID}}) + b"\n\n"]),
            stream([b"event: error\ndata: " + orjson.dumps({"message": SAID}) + b"\n\n"]),
            stream([b'{"error":', orjson.dumps(SAID) + b"}"], pause_s=0.05),
            answer({"error": SAID}),
            answer(PAGE.encode(), content_type="text/html"),
            stream([b"data: " + SAID.encode() + b"\n\n"]),
        ],
        ids=["data", "event", "json as a stream", "json", "page", "text"],
    )
    async def test_of_streams_that_are_none(self, served, upstream, step):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(step)

        await served.post(PATH, STREAM, caller.key)

        (row,) = await closed()
        (failure,) = row.failures
        assert failure["reason"] == BAD_ANSWER
        assert failure["words"].startswith(SAID)

    async def test_of_an_error_in_the_middle_of_a_stream(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        said = b"data: " + orjson.dumps({"error": {"message": f"{SAID}: {PROMPT}"}}) + b"\n\n"
        upstream.script(stream([chunk("a"), said]))

        await served.post(PATH, STREAM, caller.key)

        (row,) = await closed()
        (failure,) = row.failures
        assert (row.outcome, failure["reason"]) == ("upstream_error", BROKEN_OFF)
        assert failure["words"] == f"{SAID}: …"

    async def test_the_caller_reads_the_quotation_and_operators_do_not(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(refuse(400, message=f"Cannot read '{PROMPT}'"))

        answered = await served.post(PATH, BODY, caller.key)

        assert PROMPT in answered.json()["error"]["message"]
        (row,) = await closed()
        assert row.failures[0]["words"] == "Cannot read '…'"

    async def test_nothing_is_kept_of_what_went_well(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(
            answer(completion()), stream(frames("a")), stream([chunk(finish="stop"), DONE])
        )

        for body in (BODY, STREAM, STREAM):
            await served.post(PATH, body, caller.key)

        assert {row.failures is None for row in await closed(3)} == {True}
