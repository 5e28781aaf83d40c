"""Who is calling: resolved once at the edge, passed inward as a value.

A process remembers what it resolved for at most `KEEP_S`, keyed by the SHA-256 of the whole
token. Disabling, banning and the like announce "credentials", which empties every memory.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import Final

from django.http import HttpRequest
from ninja.security.http import HttpAuthBase

from accounts import addresses, credentials
from accounts.credentials import NOTHING, Principal, Standing
from airi_server.kernel.errors import Forbidden, Unauthorized
from airi_server.runtime.published import Published

__all__ = ["AuthedRequest", "HotKeyAuth", "KeyAuth", "Principal", "authenticate", "bearer"]

KEEP_S: Final = 10.0
KEEP_REFUSED_S: Final = 2.0
MAX_KEPT: Final = 10_000
MAX_HEADER: Final = 4096

Kept = dict[bytes, tuple[float, Standing]]


class Memory:
    """What was resolved lately, with the monotonic instant until which it holds.

    Refusals have their own dict, so that a flood of bad keys cannot push out good ones. A full
    dict is emptied: finding what is oldest would cost every request, and this is rare.
    """

    __slots__ = ("refused", "standing")

    def __init__(self) -> None:
        self.standing: Kept = {}
        self.refused: Kept = {}

    def recall(self, digest: bytes) -> Standing | None:
        kept = self.standing.get(digest) or self.refused.get(digest)
        return kept[1] if kept is not None and kept[0] > monotonic() else None

    def keep(self, digest: bytes, standing: Standing, *, until: float) -> None:
        self.standing.pop(digest, None)
        self.refused.pop(digest, None)
        kept = self.refused if standing.principal is None else self.standing
        if len(kept) >= MAX_KEPT:
            kept.clear()
        kept[digest] = (until, standing)


async def _empty() -> Memory:
    return Memory()


CREDENTIALS: Final = Published("credentials", _empty)


async def authenticate(authorization: str | None, *, address: str) -> Principal:
    """Return the caller an `Authorization` header names; `published.refresh` came before.

    Args:
        authorization: The header as it came, None when there was none.
        address: Where the call comes from (`address_of`).

    Raises:
        Unauthorized: Whatever is wrong with the credential; the answer does not say what.
        Forbidden: The key does not work from this address.
        psycopg.OperationalError, PoolTimeout: The database is away.
    """
    token = _token_of(authorization)
    digest = sha256(_ascii(token)).digest()
    # A change while we read empties a newer memory: what we keep here is then never recalled.
    memory = CREDENTIALS.current()
    standing = memory.recall(digest)
    if standing is None:
        standing = await _resolve(token, digest, memory)
    return _admit(standing, address)


async def _resolve(token: str, digest: bytes, memory: Memory) -> Standing:
    kind = credentials.kind_of(token)
    if kind is None:
        return NOTHING
    at, started = datetime.now(UTC), monotonic()
    standing = await kind.resolve(token, at=at)
    keep_s = KEEP_REFUSED_S if standing.principal is None else KEEP_S
    if standing.changes_at is not None:
        keep_s = min(keep_s, standing.changes_at - at.timestamp())
    memory.keep(digest, standing, until=started + keep_s)
    return standing


def authenticate_sync(authorization: str | None, *, address: str, at: datetime) -> Principal:
    """Return the caller, read with the ORM and not remembered. Otherwise like `authenticate`.

    Raises:
        Unauthorized: Whatever is wrong with the credential; the answer does not say what.
        Forbidden: The key does not work from this address.
    """
    token = _token_of(authorization)
    _ascii(token)
    kind = credentials.kind_of(token)
    return _admit(NOTHING if kind is None else kind.resolve_sync(token, at=at), address)


def _token_of(authorization: str | None) -> str:
    if authorization is None or len(authorization) > MAX_HEADER:
        raise Unauthorized("Unauthorized")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("Unauthorized")
    return token


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise Unauthorized("Unauthorized") from None


def _admit(standing: Standing, address: str) -> Principal:
    if standing.principal is None:
        raise Unauthorized("Unauthorized")
    if standing.networks is not None and not addresses.is_listed(address, standing.networks):
        raise Forbidden("This key may not be used from this address.")
    return standing.principal


def address_of(request: HttpRequest) -> str:
    """Return the client's address: the peer's, or what our own proxies say about it."""
    return addresses.client_of(
        peer=request.META.get("REMOTE_ADDR") or "",
        forwarded=request.META.get("HTTP_X_FORWARDED_FOR", ""),
    )


async def bearer(request: HttpRequest) -> Principal:
    """Authenticate a request of the hot path."""
    return await authenticate(request.META.get("HTTP_AUTHORIZATION"), address=address_of(request))


class AuthedRequest(HttpRequest):
    """An `HttpRequest` that was authenticated. Exists for the type checker."""

    auth: Principal


class KeyAuth(HttpAuthBase):
    """`auth=` of synchronous ninja routers."""

    openapi_scheme = "bearer"

    def __call__(self, request: HttpRequest) -> Principal:
        return authenticate_sync(
            request.META.get("HTTP_AUTHORIZATION"),
            address=address_of(request),
            at=datetime.now(UTC),
        )


class HotKeyAuth(HttpAuthBase):
    """`auth=` of asynchronous ninja routers, whose entry awaited `published.refresh`."""

    openapi_scheme = "bearer"

    async def __call__(self, request: HttpRequest) -> Principal:
        return await bearer(request)
