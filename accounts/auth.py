"""Authentication of API calls: resolved once at the edge, passed inward as a value.

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
from accounts.credentials import NOTHING, CredentialStanding, Principal
from accounts.models import KEY_PREFIX
from airi_server.kernel import context
from airi_server.kernel.errors import Forbidden, Unauthorized
from airi_server.runtime.published import Published

__all__ = ["AuthedRequest", "HotKeyAuth", "KeyAuth", "Principal", "authenticate", "bearer"]

KEEP_S: Final = 10.0
KEEP_REFUSED_S: Final = 2.0
MAX_KEPT: Final = 10_000
MAX_HEADER: Final = 4096
QUOTES: Final = "\"'`"
OTHERS: Final = ("sk-", "AIza", "gsk_", "hf_", "xai-", "r8_")
"""How keys of other providers begin: one was left in the client's configuration."""
INVALID: Final = (
    "This API key is not valid: it is unknown, disabled or expired, or its account may not be used."
)
EXPECTED: Final = (
    f"Expected: 'Authorization: Bearer {KEY_PREFIX}…', with an API key of this server."
)

Kept = dict[bytes, tuple[float, CredentialStanding]]


class Memory:
    """What was resolved lately, with the monotonic instant until which it holds.

    Refusals have their own dict, so that a flood of bad keys cannot push out good ones. A full
    dict is emptied: finding what is oldest would cost every request, and this is rare.
    """

    __slots__ = ("refused", "standing")

    def __init__(self) -> None:
        self.standing: Kept = {}
        self.refused: Kept = {}

    def recall(self, digest: bytes) -> CredentialStanding | None:
        kept = self.standing.get(digest) or self.refused.get(digest)
        return kept[1] if kept is not None and kept[0] > monotonic() else None

    def keep(self, digest: bytes, standing: CredentialStanding, *, until: float) -> None:
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
        Unauthorized: It says what is wrong with the header as it stands, and nothing of what we
            know about a key.
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
    return _admit(standing, token, address)


async def _resolve(token: str, digest: bytes, memory: Memory) -> CredentialStanding:
    kind = credentials.kind_of(token)
    if kind is None:
        token = _bare(token)
        kind = credentials.kind_of(token)
        if kind is None:
            return NOTHING
        digest = sha256(token.encode("ascii")).digest()
        standing = memory.recall(digest)
        if standing is not None:
            return standing
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
        Unauthorized: As `authenticate`.
        Forbidden: The key does not work from this address.
    """
    token = _token_of(authorization)
    _ascii(token)
    token = _bare(token)
    kind = credentials.kind_of(token)
    standing = NOTHING if kind is None else kind.resolve_sync(token, at=at)
    return _admit(standing, token, address)


def _token_of(authorization: str | None) -> str:
    if not authorization or authorization.isspace():
        raise Unauthorized(f"There is no Authorization header. {EXPECTED}")
    if len(authorization) > MAX_HEADER:
        raise Unauthorized(f"The Authorization header is too long. {EXPECTED}")
    parts = authorization.split(None, 1)
    if parts[0].lower() != "bearer":
        raise Unauthorized(f"The Authorization header does not begin with 'Bearer'. {EXPECTED}")
    if len(parts) != 2:
        raise Unauthorized(f"There is no key behind 'Bearer'. {EXPECTED}")
    return parts[1]


def _bare(token: str) -> str:
    """Return a token without the blanks and the quotes that were pasted with it.

    No kind of credential has any in it, so this is only asked of what none recognizes.
    """
    bare = token.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in QUOTES:
        bare = bare[1:-1].strip()
    return bare


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise Unauthorized(f"The key has characters that no key has. {EXPECTED}") from None


def _admit(standing: CredentialStanding, token: str, address: str) -> Principal:
    if standing.principal is None:
        raise Unauthorized(_refusal_of(_bare(token)))
    if standing.networks is not None and not addresses.is_listed(address, standing.networks):
        context.refused().is_of(standing.principal.user_id, standing.principal.api_key_id)
        raise Forbidden("This key may not be used from this address.")
    return standing.principal


def _refusal_of(token: str) -> str:
    """Say what a token looks like. One in our form is never said to exist, or to have existed."""
    if credentials.kind_of(token) is not None:
        return INVALID
    if token.startswith(KEY_PREFIX):
        return f"This API key is not whole, or was changed: one is {credentials.FORM}."
    if token[:7].lower() == "bearer ":
        return f"The Authorization header has 'Bearer' twice. {EXPECTED}"
    if token.startswith(OTHERS):
        return f"This is a key of another provider. {EXPECTED}"
    return f"This is no API key of this server. {EXPECTED}"


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
