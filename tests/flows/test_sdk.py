"""OpenAI's own SDK against the whole server: what it takes for an answer, an error and a break."""

from __future__ import annotations

import openai
import pytest
import pytest_asyncio

from tests.factories import gateway
from tests.fakes.upstream import chunk, frames, refuse, stream

pytestmark = pytest.mark.asyncio
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture
async def sdk(served, upstream):
    """A client of a funded user, without retries, and its caller."""
    caller = await gateway.caller(flux=50)
    await gateway.route(upstream.base_url)
    async with openai.AsyncOpenAI(
        base_url=f"{served.base_url}/v1", api_key=caller.key, max_retries=0
    ) as client:
        yield client


async def ask(sdk, **more):
    return await sdk.chat.completions.create(model="auto", messages=MESSAGES, **more)


class TestSDK:
    async def test_reads_answers_streams_and_models(self, sdk, upstream):
        answered = await ask(sdk)
        assert answered.choices[0].message.content == "Hello there."
        assert answered.usage.total_tokens == 160
        assert len(answered._request_id) == 36

        upstream.script(stream(frames("Hel", "lo")))
        parts = [part async for part in await ask(sdk, stream=True)]
        assert "".join(part.choices[0].delta.content or "" for part in parts) == "Hello"
        assert all(part.usage is None for part in parts)

        wanted = {"include_usage": True}
        parts = [part async for part in await ask(sdk, stream=True, stream_options=wanted)]
        assert parts[-1].usage.total_tokens == 160

        assert [model.id async for model in await sdk.models.list()] == ["auto", "chat-default"]
        assert (await sdk.models.retrieve("chat-default")).id == "chat-default"

    async def test_raises_when_a_stream_breaks(self, sdk, upstream):
        upstream.script(stream([chunk("a"), chunk("b")], pause_s=0.02, then="reset"))

        received = ""
        with pytest.raises(openai.APIError):
            async for part in await ask(sdk, stream=True):
                received += part.choices[0].delta.content

        assert received == "ab"

    async def test_raises_what_the_status_means(self, sdk, upstream):
        upstream.script(refuse(500))
        with pytest.raises(openai.InternalServerError) as failed:
            await ask(sdk)
        assert (failed.value.status_code, failed.value.code) == (502, "BAD_GATEWAY")
        with pytest.raises(openai.BadRequestError) as bad:
            await ask(sdk, n=0)
        assert (bad.value.code, bad.value.param) == ("INVALID_BODY", "n")
        with pytest.raises(openai.AuthenticationError):
            await ask(sdk.with_options(api_key="sk-airi-nobody"))
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("some/unknown-model")

    async def test_shows_people_what_is_wrong(self, sdk, served):
        async def said(error, client=sdk, **more):
            with pytest.raises(error) as refused:
                await client.chat.completions.create(**{"model": "auto", "messages": []} | more)
            return refused.value.message

        told = await said(openai.BadRequestError, model="gpt-4o")
        assert "There is no model 'gpt-4o'. Available: chat-default." in told
        told = await said(openai.NotFoundError, sdk.with_options(base_url=served.base_url))
        assert "set your client's base URL to http://127.0.0.1:8000/v1." in told
        twice = sdk.with_options(base_url=f"{served.base_url}/v1/v1")
        assert "/v1 is there twice" in await said(openai.NotFoundError, twice)
        told = await said(openai.AuthenticationError, sdk.with_options(api_key="sk-proj-abc"))
        assert "This is a key of another provider." in told
        told = await said(openai.BadRequestError, n=0)
        assert "n must be a whole number from 1 to 128." in told

    async def test_does_not_try_again_without_flux(self, sdk, served):
        caller = await gateway.caller(flux=0)
        poor = sdk.with_options(api_key=caller.key, max_retries=3)

        with pytest.raises(openai.APIStatusError) as refused:
            await ask(poor)

        assert refused.value.status_code == 402
        assert refused.value.response.headers["x-should-retry"] == "false"
