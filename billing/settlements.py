"""Values of a request's beginning and end: what to charge, and the evidence for it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from billing import pricing
from billing.pricing import Price, Usage

MAX_REPORT_BYTES: Final = 8_192
"""The most that is kept of an upstream's own usage report."""


class RequestRecord(NamedTuple):
    """Everything known about a request when it opens; settling needs all of it again."""

    id: UUID
    user_id: str
    api_key_id: str | None
    kind: str
    client_key: str | None
    input_hash: str | None
    model: str
    stream: bool
    price: Price
    prompt_estimate: int
    instance_id: str

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "user_id": self.user_id,
            "api_key_id": self.api_key_id,
            "kind": self.kind,
            "client_key": self.client_key,
            "input_hash": self.input_hash,
            "model": self.model,
            "stream": self.stream,
            "price_version": self.price.version,
            "prompt_estimate": self.prompt_estimate,
            "instance_id": self.instance_id,
        }


class Charged(NamedTuple):
    """What a settlement did. `charged + unbilled` is what was asked for."""

    state: str
    charged: int
    unbilled: int
    balance: int
    replayed: bool


@dataclass(slots=True)
class Settlement:
    """The end of one request.

    `usage` None means nothing was delivered: the row is voided and costs nothing. `completed`
    says whether the answer is whole. `failures` are the attempts that failed before the one that
    answered. `result` is the answer to keep for a replay. `reported` is the upstream's own usage
    report, kept where it was not charged as it stands.
    """

    ticket: RequestRecord
    outcome: str
    usage: Usage | None = None
    completed: bool = False
    upstream: str | None = None
    upstream_key_id: str | None = None
    attempts: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None
    error_code: str | None = None
    duration_ms: int = 0
    ttft_ms: int | None = None
    result: bytes | None = None
    reported: dict[str, Any] | None = None

    @property
    def charge(self) -> int:
        """The Flux to debit, computed from the row's own facts (invariant I7)."""
        if self.usage is None:
            return 0
        return pricing.charge_of(self.ticket.price, self.usage, completed=self.completed)

    def row(self) -> dict[str, Any]:
        usage = self.usage
        cost = pricing.cost_of(self.ticket.price, usage) if usage else None
        return self.ticket.row() | {
            "state": "voided" if usage is None else "settled",
            "charge": self.charge,
            "upstream": self.upstream,
            "upstream_key_id": self.upstream_key_id,
            "attempts": self.attempts,
            "failures": self.failures or None,
            "status": self.status,
            "prompt_tokens": usage and usage.prompt,
            "completion_tokens": usage and usage.completion,
            "cached_tokens": usage and usage.cached,
            "usage_source": usage.source if usage else "none",
            "reported": None if self.reported is None else _storable(self.reported),
            "cost_usd": None if cost is None else str(cost),
            "outcome": self.outcome,
            "error_code": self.error_code,
            "duration_ms": self.duration_ms,
            "ttft_ms": self.ttft_ms,
            "result": None if self.result is None else base64.b64encode(self.result).decode(),
        }


def _storable(report: dict[str, Any]) -> dict[str, Any]:
    """Return an upstream's report as `jsonb` can keep it: whatever it sent, settling goes on."""
    try:
        text = orjson.dumps(report).replace(b"\\u0000", b"\\ufffd")
    except orjson.JSONEncodeError:  # half a surrogate pair, a number of more than 64 bits, too deep
        return {"unreadable": _described(report)}
    if len(text) > MAX_REPORT_BYTES:
        return {"unreadable": text[:MAX_REPORT_BYTES].decode(errors="replace")}
    kept: dict[str, Any] = orjson.loads(text)
    return kept


def _described(report: dict[str, Any]) -> str:
    try:
        return ascii(report)[:MAX_REPORT_BYTES]
    except RecursionError:
        return "nested too deeply"
