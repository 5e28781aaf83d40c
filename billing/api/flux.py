"""HTTP surface of the ledger: read-only; nothing here can move Flux."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from ninja import Router, Schema
from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from accounts.auth import AuthedRequest
from airi_server.kernel.errors import InvalidRequest, NotFound
from airi_server.kernel.schemas import ErrorBody, Instant
from billing import balances, queries


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
    def of(cls, entry: queries.OwnEntry) -> Entry:
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
    """One request. `fluxCharged` is final once `state` is `settled`, `voided` or `refused`."""

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
    def of(cls, request: queries.OwnRequest) -> Request:
        facts = {name: getattr(request, name) for name in cls.model_fields}
        return cls(**{**facts, "id": str(request.id)})


class Requests(CamelSchema):
    records: list[Request]
    next_cursor: str | None


REFUSALS: Final[dict[int, type[ErrorBody]]] = dict.fromkeys((400, 401, 403, 503), ErrorBody)
MAX_OFFSET: Final = 2**53
router = Router(tags=["flux"])


@router.get("", summary="Read the balance", by_alias=True, response={200: Balance, **REFUSALS})
async def read_balance(request: AuthedRequest) -> Balance:
    """Return the caller's balance. The first read opens the account with its opening grant."""
    user_id = request.auth.user_id
    return Balance(user_id=user_id, flux=await balances.of(user_id))


@router.get("/stats", summary="Read the capacity", by_alias=True, response={200: Stats, **REFUSALS})
async def read_stats(request: AuthedRequest) -> Stats:
    """Return the balance right after the newest top-up, for a battery display."""
    return Stats(capacity=await queries.capacity_of(request.auth.user_id))


@router.get(
    "/history",
    summary="List ledger entries",
    by_alias=True,
    response={200: History, **REFUSALS},
)
async def list_history(request: AuthedRequest, limit: str = "", offset: str = "") -> History:
    """Return the caller's entries, newest first.

    `limit` is cut to 1..100 (20 by default) and `offset` to 0 or more; what is no number counts
    as absent.
    """
    page = max(1, min(100, _leading_integer(limit, 20)))
    skip = max(0, min(MAX_OFFSET, _leading_integer(offset, 0)))
    entries = await queries.history(request.auth.user_id, limit=page + 1, offset=skip)
    return History(
        records=[Entry.of(entry) for entry in entries[:page]],
        has_more=len(entries) > page,
    )


@router.get(
    "/requests",
    summary="List paid requests",
    by_alias=True,
    response={200: Requests, **REFUSALS},
)
async def list_requests(
    request: AuthedRequest, limit: str = "", cursor: str | None = None, refused: str = ""
) -> Requests:
    """Return the caller's requests, newest first; pass `nextCursor` back as `cursor`.

    With `refused=true` also those of the last seven days that were refused before they were
    opened: their `state` is `refused`, and `errorCode` says why.
    """
    page = max(1, min(100, _leading_integer(limit, 20)))
    before = _uuid(cursor) if cursor else None
    if cursor and before is None:
        raise InvalidRequest("cursor is not one we gave out.", param="cursor")
    found = await queries.requests_before(
        request.auth.user_id, before=before, limit=page + 1, refused=refused == "true"
    )
    shown = [Request.of(row) for row in found[:page]]
    return Requests(records=shown, next_cursor=shown[-1].id if len(found) > page else None)


@router.get(
    "/requests/{request_id}",
    summary="Read one paid request",
    by_alias=True,
    response={200: Request, 404: ErrorBody, **REFUSALS},
)
async def read_request(request: AuthedRequest, request_id: str) -> Request:
    """Return one of the caller's requests by its `x-request-id`.

    Also one that was refused before it was opened, for seven days: its `state` is `refused`.
    """
    wanted = _uuid(request_id)
    found = await queries.request_of(request.auth.user_id, wanted) if wanted else None
    if found is None:
        raise NotFound("There is no such request.")
    return Request.of(found)


def _leading_integer(text: str, default: int) -> int:
    found = re.match(r"\s*([+-]?\d{1,18})", text, re.ASCII)
    return int(found[1]) if found else default


def _uuid(text: str) -> UUID | None:
    if not re.fullmatch(r"[0-9a-fA-F-]{36}", text):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
