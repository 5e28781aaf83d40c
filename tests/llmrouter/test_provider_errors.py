"""What providers say when they refuse: read in every shape, sorted by their own words."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.routing import provider_errors, repairs
from llmrouter.routing.failures import Blame
from llmrouter.routing.provider_errors import Sort
from llmrouter.routing.repairs import AS_USUAL, Repair
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, refuse, stream

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
WORDS = "Unknown name thinking: cannot find field"
SHAPES = {
    "openai": (400, {"error": {"message": WORDS}}),
    "gemini": (400, [{"error": {"code": 400, "message": WORDS, "status": "INVALID_ARGUMENT"}}]),
    "fastapi": (400, {"detail": WORDS}),
    "fastapi, a list": (422, {"detail": [{"loc": ["body", "x"], "msg": WORDS}]}),
    "cloudflare": (400, {"success": False, "errors": [{"code": 5007, "message": WORDS}]}),
    "code and msg": (400, {"code": 20015, "msg": WORDS, "data": None}),
    "an object in a message": (400, {"error": {"message": {"detail": WORDS}}}),
    "an error that is text": (400, {"error": WORDS}),
    "text": (400, WORDS.encode()),
    "vllm": (400, {"object": "error", "message": WORDS, "code": 400}),
    "other 404": (404, {"error": {"message": WORDS}}),
    "too large": (413, {"error": {"message": WORDS}}),
}


def fault(status, body=None, *, request="", headers=None, trusted=False):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return provider_errors.fault(
        status, headers or {}, raw, request=request, trusted=trusted, now=NOW
    )


def error(message="no", **fields):
    return {"error": {"message": message, **fields}}


class TestSorts:
    @pytest.mark.parametrize(("status", "body"), SHAPES.values(), ids=SHAPES.keys())
    def test_the_callers_fault_goes_back_in_the_providers_words(self, status, body):
        found = fault(status, body)

        assert (found.sort, found.status) == (Sort.CALLER, status)
        assert WORDS in found.words

    @pytest.mark.parametrize(
        ("status", "body", "sort"),
        [
            (401, error(), Blame.DEAD),
            (400, error("API key not valid.", status="INVALID_ARGUMENT",
                        details=[{"reason": "API_KEY_INVALID"}]), Blame.DEAD),
            (400, [error("User location is not supported for the API use.")], Blame.DEAD),
            (403, error(code="billing_not_active"), Blame.DEAD),
            (429, error(type="insufficient_quota"), Blame.DEAD),
            (402, error("Insufficient Balance"), Blame.DEAD),
            (400, error("Incorrect API key provided"), Blame.DEAD),
            (402, error(), Blame.DOUBT),
            (403, error(), Blame.DOUBT),
            (429, error(), Blame.RATE),
            (402, error("This request requires more credits, or fewer max_tokens."),
             Sort.ELSEWHERE),
            (402, error("You can only afford 1200."), Sort.ELSEWHERE),
            (403, error("Input flagged by moderation: violence"), Sort.CALLER),
            (403, error(code="content_policy_violation"), Sort.CALLER),
            (404, error("The model `x` does not exist"), Blame.SICK),
            (404, error(code="DeploymentNotFound"), Blame.SICK),
            (400, error(code="model_not_found"), Blame.SICK),
            (408, error(), Blame.SICK), (409, error(), Blame.SICK), (424, error(), Blame.SICK),
            (405, error(), Blame.SICK), (418, error(), Blame.SICK), (501, error(), Blame.SICK),
            (302, b"", Blame.SICK),
            (500, error(), Blame.SICK), (503, b"", Blame.SICK), (529, error(), Blame.SICK),
        ],
    )  # fmt: skip
    def test_others_are_held_against_a_key_or_an_upstream(self, status, body, sort):
        assert fault(status, body).sort is sort

    @pytest.mark.parametrize("status", [401, 403, 404, 413, 429])
    @pytest.mark.parametrize("body", [b"", b"Forbidden", b"<html>nginx</html>", b" \n<!doctype"])
    def test_a_page_is_no_word_of_the_providers(self, status, body):
        found = fault(status, body)

        assert (found.sort, "<" in found.words) == (Blame.SICK, False)

    def test_html_is_a_page_on_any_status(self):
        assert fault(400, b"no", headers={"content-type": "text/html"}).sort is Blame.SICK

    def test_a_word_that_stands_in_the_request_does_not_count(self):
        """A caller whose prompt is quoted could otherwise make a key rest for everybody."""
        quoted = error('Invalid request: "incorrect API key"')

        assert fault(400, quoted, request='[{"content": "incorrect api key"}]').sort is Sort.CALLER
        assert fault(400, quoted).sort is Blame.DEAD

    def test_402_and_403_are_400_to_the_caller(self):
        """Ours speak of the caller's own balance and key."""
        assert fault(403, error("flagged")).status == 400
        assert fault(402, error("fewer max_tokens")).status == 400

    def test_the_operators_codes_decide_where_there_are_no_words(self):
        assert fault(422, b"", trusted=True).sort is Blame.SICK
        assert fault(422, b"").sort is Sort.CALLER
        assert fault(422, error(), trusted=True).sort is Sort.CALLER

    @pytest.mark.parametrize(
        ("asked", "wait_s"), [("7", 7), ("1.5", 1.5), ("Sun, 01 Mar 2026 12:00:09 GMT", 9)]
    )
    def test_what_the_provider_asks_to_wait_is_kept(self, asked, wait_s):
        assert fault(429, error(), headers={"retry-after": asked}).wait_s == wait_s

    def test_code_and_param_are_passed_on(self):
        found = fault(400, error(code="unsupported_parameter", param="tools[0].type"))

        assert (found.code, found.param) == ("unsupported_parameter", "tools[0].type")

    @given(st.integers(300, 599), st.binary(max_size=200), st.text(max_size=20))
    def test_nothing_is_too_odd(self, status, body, request):
        assert len(fault(status, body, request=request).words) <= provider_errors.MAX_MESSAGE

    @given(
        st.recursive(
            st.none() | st.text(max_size=9) | st.integers(-9, 9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["error", "message", "detail", "errors", "code"]), inner
                )
            ),
            max_leaves=20,
        )
    )
    def test_no_shape_is(self, said):
        assert isinstance(fault(400, orjson.dumps(said)).words, str)


class TestCleaned:
    @pytest.mark.parametrize(
        "secret",
        ["sk-proj-abcdef123456", "sk-abc***xyz9", "Bearer abc.def", "https://10.0.0.1/v1?key=1",
         "key-0123456789", "AIzaSyA1234567890abcdefghijk", "gsk_abcdefgh1234567890",
         "9f86d081884c7d659a2feaa0c55ad015"],
    )  # fmt: skip
    def test_keys_and_addresses_are_not_said(self, secret):
        assert secret not in provider_errors.cleaned(f"Bad: {secret}.")

    @pytest.mark.parametrize(
        "name", ["messages[0].key_points_list", "sk_learn_mode", "max_completion_tokens",
                 "tool_choice", "response_format.json_schema"]
    )  # fmt: skip
    def test_names_of_parameters_are(self, name):
        assert name in provider_errors.cleaned(f"Unknown parameter: '{name}'.")

    def test_is_one_line_of_500_characters(self):
        said = provider_errors.cleaned("a\nb\0c" * 1_000)

        assert (len(said), said.isprintable()) == (500, True)


class TestRepairs:
    @pytest.mark.parametrize(
        ("message", "fields", "mended"),
        [
            ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {},
             Repair(length_field="max_completion_tokens")),
            ("no", {"code": "unsupported_parameter", "param": "max_tokens"},
             Repair(length_field="max_completion_tokens")),
            ("Unrecognized request argument supplied: stream_options", {},
             Repair(without_usage=True)),
            ("Extra inputs are not permitted: stream_options", {}, Repair(without_usage=True)),
            ("max_tokens is too large: 16384", {}, None),
            ("Unsupported parameter: 'temperature'", {}, None),
            ("no", {}, None),
        ],
    )  # fmt: skip
    def test_a_refusal_that_names_a_field_of_ours_is_mended(self, message, fields, mended):
        found = fault(400, error(message, **fields))

        assert repairs.needed(found, AS_USUAL, length_field="max_tokens", request="") == mended

    def test_what_stands_in_the_request_may_be_quoted_from_it(self):
        found = fault(400, error("Unsupported text: max_tokens"))

        assert (
            repairs.needed(found, AS_USUAL, length_field="max_tokens", request="max_tokens") is None
        )

    def test_the_same_is_not_tried_twice(self):
        found = fault(400, error("max_tokens is not supported"))
        sent = Repair(length_field="max_tokens")

        assert repairs.needed(found, sent, length_field="max_tokens", request="") is None


@pytest.mark.asyncio
class TestThroughTheGateway:
    async def test_a_field_of_ours_is_left_out_and_that_remembered(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        unknown = answer(
            error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            status=400,
        )
        upstream.script(unknown, answer(), answer())

        first = await served.post(PATH, {**BODY, "max_tokens": 9}, caller.key)
        again = await served.post(PATH, {**BODY, "max_tokens": 9}, caller.key)

        assert (first.status, again.status) == (200, 200)
        lengths = [{k: v for k, v in s.body.items() if k.startswith("max_")} for s in upstream.seen]
        assert lengths == [
            {"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_completion_tokens": 9},
        ]  # fmt: skip
        assert [row.attempts for row in await gateway.requests()] == [1, 1]

    async def test_what_did_not_help_is_not_remembered(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        unknown = answer(error("stream_options is not supported"), status=400)
        upstream.script(unknown, unknown, stream())

        first = await served.post(PATH, {**BODY, "stream": True}, caller.key)
        await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert (first.status, len(upstream.seen)) == (400, 3)
        assert ["stream_options" in seen.body for seen in upstream.seen] == [True, False, True]

    async def test_a_dead_key_that_says_400_is_the_keys_fault(self, served, upstream):
        caller = await gateway.caller()
        await gateway.places((upstream.base_url, 2))
        dead = answer(
            error("API key not valid", details=[{"reason": "API_KEY_INVALID"}]), status=400
        )
        upstream.script(dead, answer())

        response = await served.post(PATH, BODY, caller.key)

        assert (response.status, len(upstream.seen)) == (200, 2)
        (row,) = await gateway.requests()
        assert (row.failures or [])[0]["words"] == "API key not valid"

    async def test_an_account_that_cannot_pay_for_this_one_is_no_fault(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(refuse(402, message="more credits, or fewer max_tokens"), answer())

        refused = await served.post(PATH, BODY, caller.key)
        served_next = await served.post(PATH, BODY, caller.key)

        assert (refused.status, served_next.status) == (400, 200)
        assert "fewer max_tokens" in refused.json()["error"]["message"]

    @pytest.mark.parametrize("status", [404, 413, 200])
    async def test_a_proxys_page_goes_to_the_next_upstream(self, served, upstream, status):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, upstream.base_url + "/other")
        page = answer(b"<html>no</html>", status=status, content_type="text/html")
        upstream.script(page, answer(completion("hello")))

        response = await served.post(PATH, BODY, caller.key)

        assert (response.status, len(upstream.seen)) == (200, 2)

    async def test_413_stays_if_nobody_takes_it(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(answer(b"<html>no</html>", status=413, content_type="text/html"))

        response = await served.post(PATH, BODY, caller.key)

        assert response.status == 413

    async def test_words_reach_the_caller_in_every_shape(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(
            *(
                answer(
                    body,
                    status=status,
                    content_type="text/plain" if isinstance(body, bytes) else "application/json",
                )
                for status, body in SHAPES.values()
            )
        )

        for status, _body in SHAPES.values():
            response = await served.post(PATH, BODY, caller.key)
            assert response.status == status
            assert WORDS in response.json()["error"]["message"]
        assert {row.flux_charged for row in await gateway.requests()} == {0}
