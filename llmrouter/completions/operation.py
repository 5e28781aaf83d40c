"""The chat completion operation: admit, hold, route, answer, settle; charged exactly once.

`chat` is called by the API and returns what to send. Everything that costs money happens in a
task the process owns (`llmrouter.gateway.paid`), which the response only reads from.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from accounts.auth import Principal
from airi_server.kernel import context, hops, instance, validation
from airi_server.kernel.disconnects import ClientConnection
from airi_server.kernel.errors import DomainError, Forbidden, InvalidRequest
from airi_server.kernel.ids import uuid7
from billing import prices
from billing.requests import SpendingLimits
from billing.settlements import RequestRecord
from llmrouter.completions import chat_request
from llmrouter.completions.chat_request import ChatRequest
from llmrouter.completions.completion import Completion
from llmrouter.completions.streaming import StreamedCompletion
from llmrouter.configuration import options, publishing
from llmrouter.configuration.routes import Table
from llmrouter.gateway import limits, tasks
from llmrouter.gateway.limits import Admission
from llmrouter.gateway.paid import Bounds, PaidAnswer, PaidRequest
from llmrouter.routing import health, planning
from llmrouter.routing.failover import Failover, refusal_without_attempts
from llmrouter.routing.planning import RoutePlan

KIND: Final = "chat"
MAX_CLIENT_KEY: Final = 255
STREAM_TOTAL_S: Final = 900


@dataclass(slots=True)  # frozen, it would take three times as long to make
class Call:
    """One HTTP request to the gateway. `client` None: nobody can be seen leaving (tests)."""

    principal: Principal
    body: bytes
    client_key: str | None = None
    traceparent: str | None = None
    hops: str | None = None
    client: ClientConnection | None = None
    began: float = field(default_factory=time.perf_counter)


class Reply(NamedTuple):
    """What the API sends: whole bytes or a stream. Headers are ours, never the upstream's."""

    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    content_type: str = "application/json"
    stream: StreamedCompletion | None = None


async def chat(call: Call) -> Reply:
    """Answer one chat completion.

    Raises:
        DomainError: Refused, or nobody answered. Nothing was charged and no hold is left.
    """
    client_key = _client_key(call.client_key)
    hops.onward(call.hops)  # or it is refused
    ticket_id = _request_id()
    admission = await limits.admit(call.principal, ticket_id)
    model = ""
    try:
        order = chat_request.parse(call.body)
        table = publishing.active()
        model = order.model or options.DEFAULT_CHAT_MODEL.current()
        _refuse_unlisted(call.principal, order, model, table)
        ask = health.asking_for(call.principal.user_id, table.revision)
        allowed = call.principal.allowed_models
        plan = planning.plan(
            table, model, ask, random.random, allowed=allowed, is_default=order.model is None
        )
        if client_key is None:  # a repeated key has its answer, whoever rests
            _refuse_without_attempts(plan)
        ticket = RequestRecord(
            id=ticket_id,
            user_id=call.principal.user_id,
            api_key_id=call.principal.api_key_id,
            kind=KIND,
            client_key=client_key,
            input_hash=hashlib.sha256(call.body).hexdigest() if client_key else None,
            model=model,
            stream=order.stream,
            price=prices.of_model(model),
            prompt_estimate=order.prompt.estimate,
            instance_id=instance.ID,
        )
    except BaseException:
        limits.release(admission, tokens=0)
        _note_refusal(model)
        raise
    return await _answer(call, _paid(call, order, table, plan, ticket, admission), admission)


async def _answer(call: Call, paid: PaidRequest, admission: Admission) -> Reply:
    """Run the paid request in its own task and return what it hands out."""
    task = tasks.own(paid.run(), of=paid)
    if call.client is not None:
        call.client.on_gone(paid.leave)
    headers = admission.headers
    try:
        if isinstance(paid, StreamedCompletion):
            await asyncio.shield(paid.started)
            if paid.replay is None:
                return Reply((*headers, *paid.notes()), content_type=paid.content_type, stream=paid)
        answer: PaidAnswer = await asyncio.shield(task)
    except BaseException:
        if call.client is not None:
            call.client.close()
        _note_refusal(paid.ticket.model, has_row=paid.has_row)
        raise
    if call.client is not None:
        call.client.close()
    charged = ("x-airi-flux-charged", str(answer.charged))
    if answer.replayed:
        headers = (*headers, ("x-request-id", str(answer.request_id)))
    else:
        headers = (*headers, *paid.notes())
    return Reply((*headers, charged), body=answer.body, content_type=answer.content_type)


def _paid(
    call: Call,
    order: ChatRequest,
    table: Table,
    plan: RoutePlan,
    ticket: RequestRecord,
    admission: Admission,
) -> PaidRequest:
    principal = call.principal
    bounds = Bounds(
        chain_s=table.chain_timeout_s,
        answer_s=table.answer_timeout_s,
        first_event_s=table.first_event_idle_s,
        idle_s=table.idle_timeout_s,
        total_s=STREAM_TOTAL_S,
    )
    kind = StreamedCompletion if order.stream else Completion
    return kind(
        order=order,
        route=table.llm[ticket.model],
        plan=plan,
        ticket=ticket,
        spending=SpendingLimits(principal.limit_day, principal.limit_month, principal.limit_total),
        admission=admission,
        bounds=bounds,
        walk=Failover(principal.user_id, order.fingerprint),
        traceparent=call.traceparent,
        began=call.began,
        hops=hops.onward(call.hops),
    )


def _note_refusal(model: str, *, has_row: bool = False) -> None:
    note = context.refused()
    note.model, note.has_row = model, has_row
    with contextlib.suppress(DomainError):  # nothing is published
        note.is_routed = model in publishing.active().llm


def _request_id() -> UUID:
    """Return the id the edge gave this exchange: one name in the log, the answer and the row."""
    line = context.line.get()
    if line is not None and line.request is not None:
        return line.request
    given = context.request_id.get()
    return UUID(given) if given else uuid7()


def _client_key(value: str | None) -> str | None:
    if value is None:
        return None
    if not 1 <= len(value) <= MAX_CLIENT_KEY or not all("!" <= c <= "~" for c in value):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return value


def _refuse_without_attempts(plan: RoutePlan) -> None:
    """Refuse before anything is held: every key is disabled, or this caller has failed there."""
    if not plan.attempts:
        raise refusal_without_attempts(plan.refused)


def _refuse_unlisted(principal: Principal, order: ChatRequest, model: str, table: Table) -> None:
    allowed = principal.allowed_models
    if allowed is None or model in allowed:
        return
    if order.model is not None or chat_request.AUTO not in allowed:
        said = f"This key may not use the model '{validation.shown(model)}'."
        raise Forbidden(f"{said} {planning.listed(table.usable(allowed))}", param="model")
