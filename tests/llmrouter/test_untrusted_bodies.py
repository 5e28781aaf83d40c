"""What a body may not do: choose a route, cost the server its time, hide what it costs."""

from __future__ import annotations

import asyncio
import io
import time

import orjson
import pytest

from llmrouter.completions import chat_request
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, usage

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
BODY = {"messages": MESSAGES}
MIB = 2**20


def asking(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def parse(body):
    return chat_request.parse(orjson.dumps(body))


class TestRouting:
    @pytest.mark.asyncio
    async def test_is_not_the_bodys_to_choose(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        others = {
            "Model": "gpt-5-pro", "MODEL": "x", "Max_Tokens": 10**6, "MAX_COMPLETION_TOKENS": 10**6,
            "N": 128, "Stream": True, "Stream_Options": None, "Messages": [],
            "models": ["anthropic/claude-opus"], "Models": ["x"], "route": "fallback",
            "provider": {"only": ["nobody"]}, "plugins": [{"id": "web"}], "preset": "x",
            "transforms": ["x"], "fallbacks": ["x"], "api_base": "http://evil.example",
            "base_url": "http://evil.example", "API_KEY": "sk-x", "api_version": "x",
            "service_tier": "priority", "best_of": 20, "max_output_tokens": 10**6,
            "max_new_tokens": 10**6, "num_predict": 10**6,
        }  # fmt: skip
        kept = {"temperature": 0.5, "documents": [{"Model": 1, "provider": 2}], "user": "u"}

        response = await served.post(
            PATH, {**others, **kept, **BODY, "model": "auto", "max_tokens": 8}, caller.key
        )

        assert response.status == 200
        (seen,) = upstream.seen
        assert seen.body == {**kept, **BODY, "model": "upstream-model", "max_tokens": 8}

    def test_a_name_in_other_letters_does_not_count_either(self):
        order = parse({**BODY, "Model": "x", "Max_Tokens": 7, "N": 9, "Stream": True})

        assert (order.model, order.asked_tokens, order.choices) == (None, None, 1)
        assert order.stream is False


class TestManyValues:
    @pytest.mark.asyncio
    async def test_are_refused_quickly(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        bombs = [b'{"messages":[' + unit * (31 * MIB // len(unit)) + b"0]}" for unit in
                 (b"[],", b"{},", b"1,", b'{"a":[]},')]  # fmt: skip
        for bomb in bombs:
            began = time.thread_time()
            response = await served.send("POST", PATH, key=caller.key, data=io.BytesIO(bomb))
            spent = time.thread_time() - began

            assert response.status == 400
            assert response.json()["error"]["code"] == "INVALID_BODY"
            assert spent < 1.0
        assert upstream.seen == []

    @pytest.mark.parametrize(
        "prompt",
        [
            "one, two, three, four, " * (4 * MIB // 23),
            "if so, then [that] follows, and so on: " * (31 * MIB // 40),
            '{"a": [1, 2, 3]}, ' * (1 * MIB // 18),
            "1,2,3," * (1 * MIB // 6),
        ],
    )
    def test_an_honest_long_prompt_is_none(self, prompt):
        order = parse({"messages": [{"role": "user", "content": prompt}]})

        assert order.prompt.estimate > len(prompt) // 5


class TestMedia:
    @pytest.mark.asyncio
    async def test_a_file_beyond_the_balance_is_refused(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(answer(completion(use=usage(1_000_000, 10)), after_s=0.2))
        file = {"type": "file", "file": {"file_data": "data:text/plain;base64," + "QUJD" * 10**6}}
        body = orjson.dumps({**asking(file), "max_tokens": 16})

        def sent():
            return served.send("POST", PATH, key=caller.key, data=io.BytesIO(body))

        responses = await asyncio.gather(*(sent() for _ in range(4)))

        assert {response.status for response in responses} == {402}
        assert upstream.seen == []
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (100, 0)
