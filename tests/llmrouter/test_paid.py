"""A paid request apart from its gateway: its bounds, what ends it, and what it says of its end."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from psycopg_pool import PoolTimeout

from accounts.auth import Principal
from airi_server.kernel.ids import uuid7
from billing import requests
from billing.pricing import Price, Usage
from billing.requests import SpendingLimits
from billing.settlements import RequestRecord
from llmrouter.completions import chat_request
from llmrouter.completions import operation as domain
from llmrouter.completions.completion import Completion
from llmrouter.completions.operation import Call
from llmrouter.completions.streaming import StreamedCompletion
from llmrouter.configuration import routes, tree
from llmrouter.gateway import limits, paid, tasks
from llmrouter.gateway.paid import Bounds, PaidAnswer, ServerStopping
from llmrouter.gateway.usage import Reading
from llmrouter.routing import planning
from llmrouter.routing.failures import FailureRecord, UpstreamTimeout
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.llmrouter.exchanges import principal

MODEL = "chat-default"
PRICE = Price(0, 1_000_000, 1_000_000, 1_000_000, flat=1, minimum=1)
BOUNDS = tree.Defaults(
    per_attempt_timeout_ms=4_000,
    first_byte_timeout_ms=3_000,
    idle_timeout_ms=2_000,
    full_chain_timeout_ms=50_000,
)


@pytest.fixture
def table():
    config = routers.chat_tree(MODEL).model_copy(update={"defaults": BOUNDS})
    return routes.compile(config, 1)


def call_of(caller: Principal, **more: Any) -> Call:
    return Call(caller, b"{}", began=100.0, **more)


def made(table: routes.Table, call: Call, *, streamed: bool = False):
    """Return a request as the gateway makes it, before it has begun."""
    ticket = RequestRecord(
        id=uuid7(),
        user_id=call.principal.user_id,
        api_key_id=call.principal.api_key_id,
        kind="chat",
        client_key=None,
        input_hash=None,
        model=MODEL,
        stream=streamed,
        price=PRICE,
        prompt_estimate=10,
        instance_id="i",
    )
    order = chat_request.parse(b'{"stream":true}' if streamed else b"{}")
    plan = planning.plan(table, MODEL, None, lambda: 0.0)
    return domain._paid(call, order, table, plan, ticket, limits.UNLIMITED)


class TestMade:
    def test_is_bounded_by_the_table_and_its_key(self, table):
        caller = principal(limit_day=1, limit_month=2, limit_total=3)

        request = made(table, call_of(caller, traceparent="00-trace"))

        assert request.bounds == Bounds(
            chain_s=50, answer_s=600, first_event_s=300, idle_s=2, total_s=domain.STREAM_TOTAL_S
        )
        assert request.bounds.deadline_s == 50 + 900 + 30
        assert request.spending == SpendingLimits(day=1, month=2, total=3)
        assert (request.traceparent, request.began) == ("00-trace", 100.0)
        assert (type(request), request.route) == (Completion, table.llm[MODEL])

    @pytest.mark.asyncio
    async def test_is_a_stream_if_one_was_ordered(self, table):
        assert type(made(table, call_of(principal()), streamed=True)) is StreamedCompletion


class TestSettlement:
    @pytest.fixture
    def request_(self, table, monkeypatch):
        """One that began at 100 s, whose first byte came after 1.25 s, and that ends at 102.5."""
        monkeypatch.setattr(paid, "time", SimpleNamespace(perf_counter=lambda: 102.5))
        request = made(table, call_of(principal()))
        request.first_byte_at = 1.25
        return request

    def test_says_how_it_ended_and_when(self, request_):
        used = Usage(10, 20)

        settlement = request_._settlement("completed", Reading(used), completed=True)

        assert (settlement.outcome, settlement.usage) == ("completed", used)
        assert settlement.completed is True
        assert (settlement.ttft_ms, settlement.duration_ms) == (1250, 2500)
        assert settlement.ticket is request_.ticket

    def test_says_who_answered_after_whom(self, request_):
        failure = FailureRecord("u0", "u0.example", "k0", "500", 500, 7)
        walk, attempt = request_.walk, request_.plan.attempts[0]
        walk.attempt, walk.attempts, walk.failures = attempt, 2, [failure]

        settlement = request_._settlement("completed", None, completed=False)

        answered = (settlement.upstream, settlement.upstream_key_id, settlement.status)
        assert answered == (attempt.upstream.id, attempt.key.id, 200)
        assert (settlement.attempts, settlement.failures) == (2, [failure.row()])

    def test_of_what_nobody_answered_names_nobody(self, request_):
        request_.first_byte_at = None

        settlement = request_._settlement("failed", None, completed=False)

        nobody = (settlement.upstream, settlement.upstream_key_id, settlement.status)
        assert nobody == (None, None, None)
        assert (settlement.ttft_ms, settlement.completed) == (None, False)


class TestOutOfTime:
    """What a client is told, and the row says, when the time is over before anybody answered."""

    @pytest.mark.parametrize(
        ("finishing", "code", "retry_after_s"),
        [("shutdown", "SERVICE_UNAVAILABLE", 1), ("client_gone", "CLIENT_GONE", None)],
    )
    def test_says_who_ended_it(self, table, finishing, code, retry_after_s):
        request = made(table, call_of(principal()))
        request.finishing = finishing

        refusal = request._out_of_time()

        assert (refusal.code, refusal.retry_after_s) == (code, retry_after_s)


class Broken(Completion):
    """Fails by a mistake of ours once its row is open."""

    async def produce(self) -> PaidAnswer:
        await self.open()
        raise ZeroDivisionError


@pytest.mark.asyncio
class TestFailure:
    @pytest_asyncio.fixture
    async def broken(self, hot, table):
        caller = await gateway.caller(flux=100)
        held = principal(
            user_id=caller.user_id, api_key_id=caller.key_id,
            parallel_requests=1, tokens_per_minute=100,
        )  # fmt: skip
        request = made(table, call_of(held))
        admission = await limits.admit(held, str(request.ticket.id))
        kept = {each.name: getattr(request, each.name) for each in fields(Completion)}
        return Broken(**{**kept, "admission": admission})

    async def test_of_ours_leaves_no_row_open_and_costs_nothing(self, broken):
        with pytest.raises(ZeroDivisionError):
            await broken.run()

        (row,) = await gateway.requests()
        assert (row.state, row.outcome) == ("voided", "server_error")
        assert (row.error_code, row.flux_charged) == ("ZeroDivisionError", 0)
        account = await gateway.account(broken.ticket.user_id)
        assert (account.balance, account.held) == (100, 0)
        assert limits._running == {}

    async def test_before_the_row_leaves_none_and_no_place_taken(self, broken, monkeypatch):
        async def away(*_args, **_kwargs):
            raise PoolTimeout("no connection is free")

        monkeypatch.setattr(requests, "open", away)

        with pytest.raises(PoolTimeout):
            await broken.run()

        (window,) = limits._windows.values()
        assert (window.current, limits._running) == (0, {})
        assert await gateway.requests() == []

    async def test_to_find_an_answer_ends_with_the_time_of_the_chain(self, broken, monkeypatch):
        async def hang(*_args):
            await asyncio.Event().wait()

        monkeypatch.setattr(broken, "send", hang)
        broken.bounds = broken.bounds._replace(answer_s=0.05)
        await broken.open()

        async with asyncio.timeout(5):
            with pytest.raises(UpstreamTimeout):
                await broken.find_answer()

        (row,) = await gateway.requests()
        assert (row.state, row.outcome, row.attempts) == ("voided", "failed", 1)

    async def test_to_settle_is_not_settled_again(self, broken, monkeypatch):
        tries = []

        async def away(settlement):
            tries.append(settlement)
            raise PoolTimeout("no connection is free")

        async def produce():
            await broken.open()
            read = Reading(Usage(1, 2))
            await broken.settle(broken._settlement("completed", read, completed=True))

        monkeypatch.setattr(requests, "settle", away)
        monkeypatch.setattr(broken, "produce", produce)

        with pytest.raises(PoolTimeout):
            await broken.run()

        (window,) = limits._windows.values()
        assert (len(tries), window.current, limits._running) == (1, 3, {})

    async def test_to_release_the_hold_soon_does_not_keep_the_client(self, broken, monkeypatch):
        monkeypatch.setattr(paid, "RELEASE_S", 0.02)
        settling = asyncio.Event()
        settle = requests.settle

        async def late(settlement):
            await settling.wait()
            return await settle(settlement)

        monkeypatch.setattr(requests, "settle", late)
        await broken.open()

        async with asyncio.timeout(5):
            await broken.void("failed", ServerStopping("stopping"))

        (row,) = await gateway.requests()
        assert row.settled_at is None
        settling.set()
        await tasks.drain(5)
        (row,) = await gateway.requests()
        ended = (row.state, row.outcome, row.status, row.error_code)
        assert ended == ("voided", "failed", 503, "SERVICE_UNAVAILABLE")
