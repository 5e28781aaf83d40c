"""The allow-list: what is not known to be harmless does not pass, and is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmrouter.completions import fields
from llmrouter.gateway import reports
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes.upstream import answer, completion, usage

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def passed(body, *allowed):
    return fields.select(body, frozenset(allowed))


class TestSelect:
    def test_what_openai_and_other_servers_take_passes(self):
        body = dict.fromkeys([*fields.OPENAI - {"modalities"}, *fields.HARMLESS])

        assert passed(body) == (body, ())

    @pytest.mark.parametrize(
        "name",
        ["n_predict", "n_cmpl", "num_predict", "max_new_tokens", "use_beam_search", "best_of",
         "prompt_logprobs", "echo", "chat_template", "speculative.n_max", "return_tokens",
         "vllm_xargs", "options", "extra_body", "provider", "N_Predict", "Messages", "MAX_TOKENS"],
    )  # fmt: skip
    def test_what_lifts_our_bound_never_passes(self, name):
        for allowed in ((), ("*",), (name,)):
            assert passed({name: 1, "top_k": 2}, *allowed) == ({"top_k": 2}, (name,))

    @pytest.mark.parametrize("name", [*sorted(fields.OPERATORS - {"hosted_tools"}), "brand_new"])
    def test_the_operators_fields_pass_where_the_operator_says_so(self, name):
        body = {name: 1}

        assert passed(body) == ({}, (name,))
        assert passed(body, name) == passed(body, "*") == (body, ())

    @pytest.mark.parametrize(
        ("name", "value", "passes"),
        [
            ("top_logprobs", 20, True), ("top_logprobs", 21, False), ("top_logprobs", "9", False),
            ("modalities", ["text"], True), ("modalities", ["text", "audio"], False),
        ],
    )  # fmt: skip
    def test_some_pass_with_some_values(self, name, value, passes):
        assert (name in passed({name: value})[0]) is passes

    def test_tools_that_the_provider_runs_are_the_operators(self):
        own, hosted = {"type": "function"}, {"type": "web_search"}

        assert passed({"tools": [own, hosted]}) == ({"tools": [own]}, ("tools.web_search",))
        assert passed({"tools": [hosted], "tool_choice": "auto"}) == ({}, ("tools.web_search",))
        assert passed({"tools": [hosted]}, "hosted_tools") == ({"tools": [hosted]}, ())

    def test_names_are_cut_to_what_a_header_carries(self):
        names = ("a\r\nx: y", "b, c", "ä" * 100, *(f"f{i}" for i in range(20)))

        assert (
            reports.named(names)
            == "a??x:?y, b??c, " + "?" * 64 + ", " + ", ".join(f"f{i}" for i in range(7)) + ", +13"
        )


@pytest.mark.asyncio
class TestSent:
    async def test_what_is_left_out_is_named_to_the_caller(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        body = {"messages": MESSAGES, "n_predict": 10**6, "ignore_eos": True, "x_own": 1}

        response = await served.post(PATH, body, caller.key)

        (seen,) = upstream.seen
        assert seen.body == {
            "messages": MESSAGES, "ignore_eos": True, "model": "upstream-model",
            "max_tokens": 16_384,
        }  # fmt: skip
        assert response.headers["x-airi-dropped"] == "n_predict, x_own"
        assert response.headers["x-airi-max-tokens"] == "16384"

    async def test_a_length_that_was_asked_for_is_not_told_again(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)

        response = await served.post(PATH, {"messages": MESSAGES, "max_tokens": 9}, caller.key)

        assert "x-airi-max-tokens" not in response.headers
        assert "x-airi-dropped" not in response.headers

    async def test_an_upstream_may_allow_more_and_do_without_what_we_add(self, served, upstream):
        caller = await gateway.caller()
        place = routers.upstream(
            base_url=upstream.base_url, allow=("metadata",), omit=("max_tokens", "stream_options")
        )
        models: dict[str, Any] = {"chat-default": routers.chat_model(place)}
        await gateway.publish_tree(**models)
        body = {"messages": MESSAGES, "metadata": {"a": "b"}, "store": True, "stream": True}

        await served.post(PATH, body, caller.key)

        (seen,) = upstream.seen
        assert seen.body == {
            "messages": MESSAGES, "metadata": {"a": "b"}, "model": "chat-default", "stream": True,
        }  # fmt: skip

    async def test_an_upstream_that_is_told_no_length_may_answer_up_to_the_models(
        self, served, upstream
    ):
        caller = await gateway.caller(flux=10_000)
        place = routers.upstream(base_url=upstream.base_url, omit=("max_tokens",))
        models: dict[str, Any] = {"chat-default": routers.chat_model(place)}
        await gateway.publish_tree(**models)
        upstream.script(answer(completion(use=usage(20, 9_000))))

        await served.post(PATH, {"messages": MESSAGES, "max_tokens": 20}, caller.key)

        (row,) = await gateway.requests()
        assert (row.usage_source, row.completion_tokens) == ("reported", 9_000)

    async def test_bytes_of_a_second_attempt_are_those_of_the_first(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        body = {"messages": MESSAGES, "max_completion_tokens": 70, "x_own": 1}
        for _ in range(2):
            await served.post(PATH, body, caller.key)

        first, second = upstream.seen
        assert orjson.dumps(first.body) == orjson.dumps(second.body)
        assert first.body["max_tokens"] == 70
