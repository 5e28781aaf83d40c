"""Flux over HTTP: the shapes, in camelCase, with timestamps in UTC and milliseconds."""

from __future__ import annotations

from typing import Any

from ninja import Schema
from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from airi_server.kernel.schemas import Instant
from billing import queries


class CamelSchema(Schema):
    """Python's names inside, the clients' names outside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Balance(CamelSchema):
    user_id: str
    flux: int


class Stats(CamelSchema):
    capacity: int


class Entry(CamelSchema):
    """One ledger entry. `amount` is positive; a `debit` took it, every other type gave it."""

    id: str
    type: str
    amount: int
    description: str
    metadata: dict[str, Any] | None
    created_at: Instant

    @classmethod
    def of(cls, entry: queries.Entry) -> Entry:
        return cls(
            id=str(entry.id),
            type=entry.type,
            amount=entry.amount,
            description=entry.description,
            metadata=entry.metadata,
            created_at=entry.created_at,
        )


class History(CamelSchema):
    records: list[Entry]
    has_more: bool


class Request(CamelSchema):
    """One paid request. `fluxCharged` is final once `state` is `settled` or `voided`."""

    id: str
    kind: str
    model: str
    stream: bool
    state: str
    outcome: str | None
    status: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    usage_source: str
    flux_charged: int
    unbilled: int
    hold: int
    opened_at: Instant
    settled_at: Instant | None
    duration_ms: int | None
    ttft_ms: int | None
    error_code: str | None

    @classmethod
    def of(cls, request: queries.Request) -> Request:
        facts = {name: getattr(request, name) for name in cls.model_fields}
        return cls(**{**facts, "id": str(request.id)})


class Requests(CamelSchema):
    records: list[Request]
    next_cursor: str | None
