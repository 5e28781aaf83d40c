"""HTTP surface of the ledger: read-only; nothing here can move Flux."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from ninja import Router

from accounts.auth import AuthedRequest
from airi_server.kernel.errors import InvalidRequest, NotFound
from airi_server.kernel.schemas import ErrorBody
from billing import balances, queries, schemas

REFUSALS: Final[dict[int, type[ErrorBody]]] = dict.fromkeys((400, 401, 403, 503), ErrorBody)
MAX_OFFSET: Final = 2**53
router = Router(tags=["flux"])


@router.get(
    "", summary="Read the balance", by_alias=True, response={200: schemas.Balance, **REFUSALS}
)
async def read_balance(request: AuthedRequest) -> schemas.Balance:
    """Return the caller's balance. The first read opens the account with its opening grant."""
    user_id = request.auth.user_id
    return schemas.Balance(user_id=user_id, flux=await balances.of(user_id))


@router.get(
    "/stats", summary="Read the capacity", by_alias=True, response={200: schemas.Stats, **REFUSALS}
)
async def read_stats(request: AuthedRequest) -> schemas.Stats:
    """Return the balance right after the newest top-up, for a battery display."""
    return schemas.Stats(capacity=await queries.capacity_of(request.auth.user_id))


@router.get(
    "/history",
    summary="List ledger entries",
    by_alias=True,
    response={200: schemas.History, **REFUSALS},
)
async def list_history(
    request: AuthedRequest, limit: str = "", offset: str = ""
) -> schemas.History:
    """Return the caller's entries, newest first.

    `limit` is cut to 1..100 (20 by default) and `offset` to 0 or more; what is no number counts
    as absent.
    """
    page = max(1, min(100, _leading_integer(limit, 20)))
    skip = max(0, min(MAX_OFFSET, _leading_integer(offset, 0)))
    entries = await queries.history(request.auth.user_id, limit=page + 1, offset=skip)
    return schemas.History(
        records=[schemas.Entry.of(entry) for entry in entries[:page]],
        has_more=len(entries) > page,
    )


@router.get(
    "/requests",
    summary="List paid requests",
    by_alias=True,
    response={200: schemas.Requests, **REFUSALS},
)
async def list_requests(
    request: AuthedRequest, limit: str = "", cursor: str | None = None
) -> schemas.Requests:
    """Return the caller's requests, newest first; pass `nextCursor` back as `cursor`."""
    page = max(1, min(100, _leading_integer(limit, 20)))
    before = _uuid(cursor) if cursor else None
    if cursor and before is None:
        raise InvalidRequest("cursor is not one we gave out.", param="cursor")
    found = await queries.requests_before(request.auth.user_id, before=before, limit=page + 1)
    shown = [schemas.Request.of(row) for row in found[:page]]
    return schemas.Requests(records=shown, next_cursor=shown[-1].id if len(found) > page else None)


@router.get(
    "/requests/{request_id}",
    summary="Read one paid request",
    by_alias=True,
    response={200: schemas.Request, 404: ErrorBody, **REFUSALS},
)
async def read_request(request: AuthedRequest, request_id: str) -> schemas.Request:
    """Return one of the caller's requests by its `x-request-id`."""
    wanted = _uuid(request_id)
    found = await queries.request_of(request.auth.user_id, wanted) if wanted else None
    if found is None:
        raise NotFound("There is no such request.")
    return schemas.Request.of(found)


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
