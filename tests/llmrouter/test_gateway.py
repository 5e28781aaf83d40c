"""What the gateway makes of one call: whom it lets in, what it writes down, what it hands out."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio

from airi_server.kernel import context, instance
from airi_server.kernel.disconnects import ClientConnection
from airi_server.kernel.errors import DomainError, Forbidden
from airi_server.kernel.ids import uuid7
from airi_server.runtime import published
from billing.requests import SETTLE_DEADLINE_S, SpendingLimitReached
from llmrouter.completions import operation as domain
from llmrouter.completions.operation import Call
from llmrouter.configuration import tree
from llmrouter.gateway import limits
from llmrouter.routing.failures import UpstreamRefused
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes.upstream import answer, completion, hang, refuse, stream
from tests.llmrouter.exchanges import closed, principal

pytestmark = pytest.mark.asyncio
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
RAW = orjson.dumps(BODY)


@pytest_asyncio.fixture
async def caller(hot):
    return await gateway.caller(flux=100)


@pytest_asyncio.fixture
async def route(hot, upstream):
    await gateway.route(upstream.base_url)
    await published.refresh()


def of(caller, **fields):
    return principal(user_id=caller.user_id, api_key_id=caller.key_id, **fields)


async def only_row():
    (row,) = await gateway.requests()
    return row


class Client(ClientConnection):
    """A client that stays."""

    def __init__(self):
        super().__init__(asyncio.get_running_loop().create_future)
        self.is_watched: bool | None = None

    def on_gone(self, callback):
        super().on_gone(callback)
        self.is_watched = True

    def close(self):
        super().close()
        self.is_watched = False


@pytest.mark.usefixtures("route")
class TestAdmitted:
    @pytest.mark.parametrize("allowed", [[], ["other"]])
    async def test_is_no_key_for_other_models(self, caller, upstream, allowed):
        limited = of(caller, allowed_models=frozenset(allowed), parallel_requests=1)

        for asked in ("auto", "chat-default"):
            with pytest.raises(Forbidden) as refused:
                await domain.chat(Call(limited, orjson.dumps({**BODY, "model": asked})))
            assert refused.value.param == "model"

        assert (upstream.seen, await gateway.requests(), limits._running) == ([], [], {})

    async def test_is_a_key_for_this_model_by_its_name_or_as_the_default(self, caller):
        limited = of(caller, allowed_models=frozenset(["chat-default"]))

        for asked in ("auto", "chat-default"):
            reply = await domain.chat(Call(limited, orjson.dumps({**BODY, "model": asked})))
            assert reply.body == orjson.dumps(completion())

    async def test_and_then_refused_leaves_its_place_and_no_tokens(self, caller):
        limited = of(caller, parallel_requests=1, tokens_per_minute=10)

        for raw in (b"{", orjson.dumps({**BODY, "model": "x"})):
            with pytest.raises(DomainError):
                await domain.chat(Call(limited, raw))

        (window,) = limits._windows.values()
        assert (window.current, limits._running) == (0, {})

    async def test_and_answered_counts_the_tokens_that_were_used(self, caller):
        await domain.chat(Call(of(caller, tokens_per_minute=1_000), RAW))

        (window,) = limits._windows.values()
        assert window.current == 120 + 40

    async def test_is_no_key_that_has_spent_what_it_may(self, caller, upstream):
        for limit in ("limit_day", "limit_month", "limit_total"):
            with pytest.raises(SpendingLimitReached):
                await domain.chat(Call(of(caller, **{limit: 0}), RAW))

        assert upstream.seen == []

    async def test_is_told_where_it_stands(self, caller, upstream):
        limited = of(caller, requests_per_minute=5)
        upstream.script(answer(), stream())

        for streamed in (False, True):
            raw = orjson.dumps({**BODY, "stream": streamed})
            reply = await domain.chat(Call(limited, raw))

            assert dict(reply.headers)["RateLimit-Limit"] == "5"


@pytest.mark.usefixtures("route")
class TestRow:
    async def test_says_who_asked_for_what(self, caller):
        request_id = uuid7()
        context.request_id.set(str(request_id))

        await domain.chat(Call(of(caller), RAW, client_key="once"))

        row = await only_row()
        assert (row.id, row.kind, row.stream) == (request_id, "chat", False)
        assert (row.user_id, row.api_key_id) == (caller.user_id, caller.key_id)
        assert row.client_key == "once"
        assert bytes(row.input_hash) == hashlib.sha256(RAW).digest()
        assert (row.model, row.instance_id) == ("chat-default", instance.ID)
        assert row.prompt_estimate == len(RAW) // 4

    async def test_keeps_no_hash_without_a_key_to_ask_again_with(self, caller):
        await domain.chat(Call(of(caller), RAW))

        row = await only_row()
        assert (row.client_key, row.input_hash) == (None, None)

    async def test_counts_its_times_from_the_call(self, caller, upstream):
        upstream.script(answer(after_s=0.02), stream(pause_s=0.02))
        for streamed in (False, True):
            raw = orjson.dumps({**BODY, "stream": streamed})
            await domain.chat(Call(of(caller), raw, began=time.perf_counter() - 5))

        for row in await closed(2):
            assert 5_000 < row.ttft_ms <= row.duration_ms < 9_000

    async def test_is_an_orphan_when_nothing_of_it_can_run_any_more(self, caller):
        await domain.chat(Call(of(caller), RAW))

        row = await only_row()
        lasts_s = 60 + domain.STREAM_TOTAL_S + SETTLE_DEADLINE_S
        assert row.deadline_at - row.opened_at == timedelta(seconds=lasts_s)


class TestPlan:
    async def test_leaves_a_refused_key_alone_until_a_revision_is_published(self, caller, upstream):
        upstream.script(refuse(401), answer())
        base_url = upstream.base_url
        keys = [routers.sealed_key(key_id=name, base_url=base_url) for name in ("k1", "k2")]
        for timeout_ms in (5_000, 4_000):
            made = routers.upstream(base_url=base_url, keys=keys, timeout_ms=timeout_ms)
            models: dict[str, Any] = {"chat-default": routers.chat_model(made)}
            await gateway.publish_tree(**models)
            await published.refresh()
            for _ in range(2):
                await domain.chat(Call(of(caller), RAW))

        rows = await gateway.requests()
        assert [row.upstream_key_id for row in rows] == ["k2", "k2", "k1", "k1"]
        assert [row.attempts for row in rows] == [2, 1, 1, 1]

    async def test_draws_among_equals(self, caller, upstream):
        equals = [
            routers.upstream(base_url=upstream.base_url, id=name, priority=1) for name in ("x", "y")
        ]
        models: dict[str, Any] = {"chat-default": routers.chat_model(*equals)}
        await gateway.publish_tree(**models)
        await published.refresh()

        await domain.chat(Call(of(caller), RAW))

        assert (await only_row()).upstream in {"x", "y"}

    async def test_ends_with_the_time_of_the_whole_chain(self, caller, upstream):
        quick = tree.Defaults(full_chain_timeout_ms=100)
        await gateway.places((upstream.base_url, 2), defaults=quick, timeout_ms=400)
        await published.refresh()
        upstream.script(hang())

        with pytest.raises(DomainError):
            await domain.chat(Call(of(caller), RAW))

        assert (await only_row()).attempts == 1


@pytest.mark.usefixtures("route")
class TestReply:
    async def test_names_the_first_request_only_when_it_is_its_answer_again(self, caller):
        """The name of this one is the edge's to add."""
        call = Call(of(caller, parallel_requests=1), RAW, client_key="once")

        first, again = await domain.chat(call), await domain.chat(call)

        row = await only_row()
        charged = ("x-airi-flux-charged", "1")
        assert first.headers == (("x-airi-max-tokens", "4096"), charged)
        assert again.headers == (("x-request-id", str(row.id)), charged)
        assert (again.body, again.content_type) == (first.body, "application/json")
        assert limits._running == {}

    async def test_ends_the_watch_for_a_client_that_leaves(self, caller):
        for _ in ("first", "again"):
            client = Client()

            await domain.chat(Call(of(caller), RAW, client_key="once", client=client))

            assert client.is_watched is False

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_that_is_a_refusal_ends_it_too(self, caller, upstream, streamed):
        upstream.script(refuse(400))
        client = Client()

        with pytest.raises(UpstreamRefused):
            await domain.chat(
                Call(of(caller), orjson.dumps({**BODY, "stream": streamed}), client=client)
            )

        assert client.is_watched is False

    async def test_that_is_a_stream_goes_on_with_it(self, caller, upstream):
        upstream.script(stream(pause_s=0.02))
        client = Client()

        reply = await domain.chat(
            Call(of(caller), orjson.dumps({**BODY, "stream": True}), client=client)
        )

        assert reply.content_type == "text/event-stream"
        assert client.is_watched is True
        client.close()
