"""The official SDKs against a running server: what developers will really use."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.factories import gateway
from tests.fakes.upstream import DONE, answer, chunk, completion, refuse, stream, usage, usage_chunk
from tests.processes.clients import node

OPENAI_NODE = "openai@7.55.0"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a":1}'},
}


def called() -> dict[str, Any]:
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    return body


@pytest.fixture
def caller(transactional_db, provider):
    gateway.make_route(provider.base_url, name="vendor/chat")
    return gateway.make_caller(flux=1000)


@pytest.fixture
def sdk(server, caller):
    with OpenAI(base_url=f"{server.base_url}/v1", api_key=caller.key, max_retries=0) as client:
        yield client


class TestOpenAIPython:
    def test_completes_streams_calls_tools_and_lists_models(self, server, sdk, caller, provider):
        plain = sdk.chat.completions.with_raw_response.create(model="auto", messages=MESSAGES)
        assert plain.parse().choices[0].message.content == "Hello there."
        assert plain.headers["x-airi-flux-charged"] == "1"

        provider.script(stream())
        chunks = list(sdk.chat.completions.create(model="auto", messages=MESSAGES, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello"
        assert all(c.usage is None for c in chunks)

        wanted: Any = {"include_usage": True}
        provider.script(stream())
        *_, last = sdk.chat.completions.create(
            model="auto", messages=MESSAGES, stream=True, stream_options=wanted
        )
        assert last.usage.completion_tokens == 40

        provider.script(answer(called()))
        answered = sdk.chat.completions.create(model="auto", messages=MESSAGES, tools=TOOLS)
        assert answered.choices[0].message.tool_calls[0].function.name == "add"
        assert provider.seen[-1].body["tools"] == TOOLS

        assert [model.id for model in sdk.models.list()] == ["auto", "vendor/chat"]
        assert sdk.models.retrieve("vendor/chat").id == "vendor/chat"

        paid = httpx.get(
            f"{server.base_url}/api/v1/flux/requests",
            headers={"Authorization": f"Bearer {caller.key}"},
        ).json()["records"]
        assert [record["fluxCharged"] for record in paid] == [1, 1, 1, 1]
        assert plain.headers["x-request-id"] == paid[-1]["id"]

    def test_raises_what_developers_catch(self, server, sdk, provider):
        with OpenAI(base_url=f"{server.base_url}/v1", api_key="sk-airi-no") as stranger:
            with pytest.raises(openai.AuthenticationError):
                stranger.models.list()
        with pytest.raises(openai.BadRequestError, match=r"no model 'none'\. Available: vendor/"):
            sdk.chat.completions.create(model="none", messages=MESSAGES)
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve("none/such")

        provider.script(refuse(400, message="tools are not supported"))
        with pytest.raises(openai.BadRequestError, match="tools are not supported"):
            sdk.chat.completions.create(model="auto", messages=MESSAGES)

        provider.script(refuse(503))
        with pytest.raises(openai.InternalServerError) as failed:
            sdk.chat.completions.create(model="auto", messages=MESSAGES)
        assert failed.value.code == "BAD_GATEWAY"

    def test_raises_when_a_stream_breaks(self, sdk, provider):
        provider.script(stream([chunk("Hel"), chunk("lo")], then="reset"))

        with pytest.raises((openai.APIError, httpx.HTTPError)):
            for _ in sdk.chat.completions.create(model="auto", messages=MESSAGES, stream=True):
                pass

    def test_does_not_retry_what_money_alone_can_mend(self, server, provider, transactional_db):
        gateway.make_route(provider.base_url)
        poor = gateway.make_caller(flux=1)

        with OpenAI(base_url=f"{server.base_url}/v1", api_key=poor.key, max_retries=3) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                client.chat.completions.create(model="auto", messages=MESSAGES)

        assert refused.value.status_code == 402
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert provider.seen == []


@node.needed
def test_openai_node(server, caller, provider):
    provider.script(
        answer(),
        stream([chunk("Hel"), chunk("lo"), chunk("", finish="stop"), usage_chunk(), DONE]),
        answer(called()),
        refuse(400, message="no tools here"),
        answer(completion(use=usage(1, 1))),
    )
    script = node.script("openai_node.mjs", OPENAI_NODE)

    ran = subprocess.run(
        ["node", script.name],
        cwd=script.parent,
        env={**os.environ, "BASE_URL": f"{server.base_url}/v1", "API_KEY": caller.key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "plain": "Hello there.",
        "charged": "1",
        "streamed": "Hello",
        "tool": "add",
        "error": {"status": 400, "message": "400 no tools here"},
        "unknown": ["unknown_model", "400 There is no model 'none'. Available: vendor/chat."],
        "misled": "404 No route matched POST /chat/completions. The API is under /v1: set your "
        "client's base URL to http://127.0.0.1:8000/v1.",
        "foreign": "401 This is a key of another provider. Expected: 'Authorization: Bearer "
        "sk-airi-…', with an API key of this server.",
        "refused": [401, 413],
        "models": ["auto", "vendor/chat"],
        "model": "vendor/chat",
    }
