"""A broken setting or route says what it is, and opens no row."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from django.db import transaction

from airi_server.kernel.threads import in_thread
from airi_server.runtime import options as runtime_options
from airi_server.runtime.models import OptionRevision
from airi_server.runtime.published import announce
from llmrouter.completions import operation as domain
from llmrouter.completions import sse
from llmrouter.configuration import options
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes.upstream import frames, refuse, stream
from tests.llmrouter.exchanges import closed, interruption

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.asyncio
class TestNothingToTry:
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_model_without_an_enabled_key_says_so_and_opens_no_row(self, served, streamed):
        caller = await gateway.caller(flux=10)
        keys = [routers.sealed_key(disabled=True)]
        models: dict[str, Any] = {"chat-default": routers.chat_model(routers.upstream(keys=keys))}
        await gateway.publish_tree(**models)

        response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

        assert response.status == 502
        assert response.json()["error"]["message"] == "No upstream of this model is enabled."
        assert await gateway.requests() == []

    async def test_a_caller_who_has_failed_by_the_only_key_opens_no_row(self, served, upstream):
        caller = await gateway.caller(flux=10)
        await gateway.route(upstream.base_url)
        upstream.script(refuse(401))
        await served.post(PATH, BODY, caller.key)
        rows = len(await gateway.requests())

        for streamed in (False, True):
            response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)
            assert (response.status, response.headers["Retry-After"]) == (502, "10")

        assert len(await gateway.requests()) == rows == 1
        assert (await gateway.account(caller.user_id)).held == 0


@pytest.mark.asyncio
class TestUnreadableSetting:
    @pytest.mark.parametrize("value", [-1, "many", [], {"a": 1}])
    async def test_counts_as_not_set(self, served, upstream, value):
        caller = await gateway.caller(tokens_per_minute=None)
        await gateway.route(upstream.base_url)
        await gateway.option(options.COMPLETIONS_PER_MINUTE.name, 7)
        assert (await served.post(PATH, BODY, caller.key)).status == 200

        await in_thread(write_option)(options.TOKENS_PER_MINUTE.name, value)
        # Settings beside it are still followed: this is no stale copy.
        await gateway.option(options.COMPLETIONS_PER_MINUTE.name, 9)
        response = await served.post(PATH, BODY, caller.key)
        balance = await served.get("/api/v1/flux", caller.key)

        assert (response.status, balance.status) == (200, 200)
        assert options.TOKENS_PER_MINUTE.current() == options.TOKENS_PER_MINUTE.default
        assert options.COMPLETIONS_PER_MINUTE.current() == 9


def write_option(name, value):
    """Write what another version of this server could have written."""
    assert name in runtime_options.REGISTRY
    with transaction.atomic():
        OptionRevision.objects.create(
            name=name, value=value, changed_by="another version", changed_at=gateway.NOW
        )
        announce("options")


def choice(index, text, finish=None):
    made = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + orjson.dumps({"choices": [made]}) + b"\n\n"


@pytest.mark.asyncio
class TestEndOfAStream:
    async def test_cut_after_the_first_of_two_choices_is_broken(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        parts = [choice(0, "a"), choice(1, "b"), choice(0, "", "stop"), choice(1, "half")]
        whole = [*parts, choice(1, "", "length")]
        upstream.script(stream(parts, pause_s=0.02), stream(whole, pause_s=0.02))
        body = {**BODY, "stream": True, "n": 2}

        broken = await served.post(PATH, body, caller.key)
        complete = await served.post(PATH, body, caller.key)

        assert (broken.cut, complete.cut) == (True, False)
        assert interruption(broken.body)["code"] == "BAD_GATEWAY"
        rows = await closed(2)
        assert [row.outcome for row in rows] == ["upstream_broken", "completed"]

    async def test_what_trickles_after_the_end_marker_does_not_hold_it_up(
        self, served, upstream, monkeypatch
    ):
        monkeypatch.setattr(domain, "STREAM_TOTAL_S", 60)
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(stream([*frames(), *[b": ping\n\n"] * 60], pause_s=0.1))
        began = time.perf_counter()

        response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert response.body.endswith(b"data: [DONE]\n\n")
        assert time.perf_counter() - began < 5
        (row,) = await closed()
        assert (row.outcome, row.usage_source) == ("completed", "reported")

    async def test_the_end_marker_never_puts_the_deadline_off(self, served, upstream, monkeypatch):
        monkeypatch.setattr(domain, "STREAM_TOTAL_S", 0.6)
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(stream([*frames("a", "b"), *[b": ping\n\n"] * 60], pause_s=0.08))
        began = time.perf_counter()

        response = await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert response.body.endswith(b"data: [DONE]\n\n")
        assert time.perf_counter() - began < 4


def test_reasoning_is_estimated():
    """As OpenRouter spells it."""
    reader = sse.StreamReader(hide_usage=True)
    delta = {
        "role": "assistant",
        "content": "",
        "reasoning": "some forty characters of reasoning text.",
    }
    for _ in range(50):
        reader.feed(b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n")

    assert reader.generated == 50 * len(delta["reasoning"])
