"""The demo upstream speaks OpenAI's protocol well enough for OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from openai.types.chat import ChatCompletionMessageParam

from airi_server.launch import demo_upstream

KEY = "sk-local-of-the-tests"
MODEL = demo_upstream.MODEL
SAYING: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "one two  three"},
]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TestServer]:
    running = TestServer(demo_upstream.application(KEY))
    async with running:
        yield running


@pytest_asyncio.fixture
async def client(server: TestServer) -> AsyncIterator[openai.AsyncOpenAI]:
    base_url = str(server.make_url("/v1"))
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0) as running:
        yield running


@pytest.mark.asyncio
async def test_it_echoes_and_counts_words(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=SAYING)

    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 3)
    assert answer.usage.total_tokens == 8


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [{"max_tokens": 2}, {"max_completion_tokens": 2}])
async def test_it_stops_at_the_limit(client: openai.AsyncOpenAI, limit: dict[str, int]) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=SAYING, extra_body=limit)

    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.asyncio
async def test_a_stream_says_the_same_and_ends_with_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=SAYING, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == "one two three"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.asyncio
async def test_a_stream_without_the_option_has_no_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=SAYING, stream=True)
    assert [chunk.usage async for chunk in stream if chunk.usage] == []


@pytest.mark.asyncio
async def test_it_lists_its_model(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]


@pytest.mark.asyncio
async def test_another_key_is_refused(server: TestServer) -> None:
    base_url = str(server.make_url("/v1"))
    async with openai.AsyncOpenAI(api_key="sk-other", base_url=base_url) as stranger:
        with pytest.raises(openai.AuthenticationError) as refusal:
            await stranger.models.list()
    assert refusal.value.code == "invalid_api_key"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_type"),
        (b'{"model": "other", "messages": [{}]}', 404, "model_not_found"),
        (b'{"model": "demo-echo", "messages": []}', 400, "invalid"),
        (b'{"model": "demo-echo", "messages": ["hi"]}', 400, "invalid_type"),
        (b'{"model": "demo-echo", "messages": [{}], "max_tokens": true}', 400, "invalid"),
    ],
)
async def test_bad_input_gets_an_error_object(
    server: TestServer, body: bytes, status: int, code: str
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        url = server.make_url("/v1/chat/completions")
        async with session.post(url, data=body) as response:
            answer = await response.json()
    assert response.status == status
    assert answer["error"]["code"] == code
    assert answer["error"]["type"] == "invalid_request_error"
    assert set(answer["error"]) == {"message", "type", "param", "code"}
