"""One chat completion: admitted, held, routed, answered, settled. Exactly once, however it ends.

`chat` is called by the API and returns what to send. Everything that costs money happens in a
task the process owns (`llmrouter.completions.paid`), which the response only reads from.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from accounts.auth import Principal
from airi_server.kernel import context, instance
from airi_server.kernel.client import ClientConnection
from airi_server.kernel.errors import Forbidden, InvalidRequest
from airi_server.kernel.ids import uuid7
from billing import prices
from billing.requests import SpendingLimits
from billing.settlements import Ticket
from llmrouter import limits, options, owners
from llmrouter.completions import orders
from llmrouter.completions.completion import Completion
from llmrouter.completions.orders import Order
from llmrouter.completions.paid import Answer, Bounds, PaidRequest
from llmrouter.completions.streaming import Streaming
from llmrouter.configuration import publishing
from llmrouter.configuration.routes import Table
from llmrouter.limits import Admission
from llmrouter.routing import health, planning
from llmrouter.routing.attempts import Walk
from llmrouter.routing.planning import Plan

KIND: Final = "chat"
MAX_CLIENT_KEY: Final = 255
STREAM_TOTAL_S: Final = 900


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to the gateway. `client` None: nobody can be seen leaving (tests)."""

    principal: Principal
    body: bytes
    client_key: str | None = None
    traceparent: str | None = None
    client: ClientConnection | None = None
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API sends: whole bytes or a stream. Headers are ours, never the upstream's."""

    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    content_type: str = "application/json"
    stream: Streaming | None = None


async def chat(call: Call) -> Reply:
    """Answer one chat completion.

    Raises:
        DomainError: Refused, or nobody answered. Nothing was charged and no hold is left.
    """
    client_key = _client_key(call.client_key)
    ticket_id = _request_id()
    admission = await limits.admit(call.principal, str(ticket_id))
    try:
        order = orders.parse(call.body)
        table = publishing.active()
        model = order.model or options.DEFAULT_CHAT_MODEL.current()
        _refuse_unlisted(call.principal, model)
        plan = planning.plan(
            table, model, health.resting(table.revision), time.time(), random.random
        )
        if client_key is None:  # a repeated key has its answer, whoever rests
            _refuse_without_attempts(plan)
        ticket = Ticket(
            id=ticket_id,
            user_id=call.principal.user_id,
            api_key_id=call.principal.api_key_id,
            kind=KIND,
            client_key=client_key,
            input_hash=hashlib.sha256(call.body).hexdigest() if client_key else None,
            model=model,
            stream=order.stream,
            price=prices.of_model(model),
            prompt_estimate=order.prompt_estimate,
            instance_id=instance.ID,
        )
    except BaseException:
        limits.release(admission, tokens=0)
        raise
    return await _answer(call, _paid(call, order, table, plan, ticket, admission), admission)


async def _answer(call: Call, paid: PaidRequest, admission: Admission) -> Reply:
    """Run the paid request in its own task and return what it hands out."""
    task = owners.own(paid.run(), of=paid)
    if call.client is not None:
        call.client.on_gone(paid.leave)
    headers = admission.headers
    try:
        if isinstance(paid, Streaming):
            await asyncio.shield(paid.started)
            if paid.replay is None:
                return Reply(headers, content_type=paid.content_type, stream=paid)
        answer: Answer = await asyncio.shield(task)
    except BaseException:
        if call.client is not None:
            call.client.close()
        raise
    if call.client is not None:
        call.client.close()
    charged = ("x-airi-flux-charged", str(answer.charged))
    if answer.replayed:
        headers = (*headers, ("x-request-id", str(answer.request_id)))
    return Reply((*headers, charged), body=answer.body, content_type=answer.content_type)


def _paid(
    call: Call, order: Order, table: Table, plan: Plan, ticket: Ticket, admission: Admission
) -> PaidRequest:
    principal = call.principal
    bounds = Bounds(
        first_byte_s=table.first_byte_timeout_s,
        idle_s=table.idle_timeout_s,
        chain_s=table.chain_timeout_s,
        total_s=STREAM_TOTAL_S,
    )
    kind = Streaming if order.stream else Completion
    return kind(
        order=order,
        route=table.llm[ticket.model],
        plan=plan,
        ticket=ticket,
        spending=SpendingLimits(principal.limit_day, principal.limit_month, principal.limit_total),
        admission=admission,
        bounds=bounds,
        traceparent=call.traceparent,
        began=call.began,
    )


def _request_id() -> UUID:
    """Return the id the edge gave this exchange: one name in the log, the answer and the row."""
    given = context.request_id.get()
    return UUID(given) if given else uuid7()


def _client_key(value: str | None) -> str | None:
    if value is None:
        return None
    if not 1 <= len(value) <= MAX_CLIENT_KEY or not all("!" <= c <= "~" for c in value):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return value


def _refuse_without_attempts(plan: Plan) -> None:
    """Refuse before anything is held: every key rests, or is disabled."""
    if not plan.attempts:
        raise Walk[None]().refusal(plan)


def _refuse_unlisted(principal: Principal, model: str) -> None:
    if principal.allowed_models is not None and model not in principal.allowed_models:
        raise Forbidden("This key may not use that model.", param="model")
