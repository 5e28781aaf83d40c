"""Credentials: the kinds of token, the principal each stands for, and the rule that decides."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final, Protocol

from django.db.models import Q

from accounts import addresses
from accounts.models import KEY_PREFIX, APIKey, User
from airi_server.kernel import database, ids, resources

TOUCH_EVERY: Final = timedelta(seconds=60)
PUBLIC_ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 40
KEY_LENGTH: Final = len(KEY_PREFIX) + PUBLIC_ID_LENGTH + SECRET_LENGTH
FORM: Final = f"'{KEY_PREFIX}' and {PUBLIC_ID_LENGTH + SECRET_LENGTH} letters and digits"
BASE62: Final = frozenset(ids.BASE62_ALPHABET)

_authenticate_key_sql = resources.read_text("accounts", "sql/authenticate_key.sql")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `user_id` is the only thing the ledger knows.

    Attributes:
        api_key_id: Public id of the key, None when called with something else.
        allowed_models: None allows every model.
        requests_per_minute, tokens_per_minute, parallel_requests: None is the operator's
            default, 0 is no limit.
        limit_day, limit_month, limit_total: Whole Flux, None is no limit.
        expires_at: Seconds since the epoch; a socket must not outlive it.
    """

    user_id: str
    api_key_id: str | None
    allowed_models: frozenset[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel_requests: int | None
    limit_day: int | None
    limit_month: int | None
    limit_total: int | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class CredentialStanding:
    """What a token is worth now: nothing, or a principal at some addresses.

    Attributes:
        networks: Where it may be used from; None is everywhere.
        changes_at: Seconds since the epoch when this stops being true by itself.
    """

    principal: Principal | None = None
    networks: tuple[addresses.Network, ...] | None = None
    changes_at: float | None = None


NOTHING: Final = CredentialStanding()


class CredentialKind(Protocol):
    """A kind of credential. What one kind recognizes no other is asked about."""

    def recognizes(self, token: str) -> bool: ...

    async def resolve(self, token: str, *, at: datetime) -> CredentialStanding:
        """Look the token up on the hot path, in at most one round trip."""
        ...

    def resolve_sync(self, token: str, *, at: datetime) -> CredentialStanding:
        """Look the token up with the ORM; the same answer."""
        ...


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the database knows about a public id, in the order `authenticate_key.sql` selects."""

    public_id: str
    secret_hash: bytes = field(repr=False)
    user_id: str
    disabled_at: datetime | None
    expires_at: datetime | None
    is_active: bool
    banned: bool
    ban_expires_at: datetime | None
    allowed_models: list[str]
    allowed_addresses: list[str]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel_requests: int | None
    limit_day: int | None
    limit_month: int | None
    limit_total: int | None


OF_USER: Final = frozenset({"is_active", "banned", "ban_expires_at"})
COLUMNS: Final = tuple(
    f"user__{column.name}" if column.name in OF_USER else column.name
    for column in fields(StoredKey)
)


def standing_of(
    stored: StoredKey | None, *, secret_hash: bytes, at: datetime
) -> CredentialStanding:
    """Decide what a presented key is worth. The one rule, however the row was read."""
    if stored is None or not hmac.compare_digest(stored.secret_hash, secret_hash):
        return NOTHING
    if stored.disabled_at is not None or not stored.is_active:
        return NOTHING
    if stored.expires_at is not None and stored.expires_at <= at:
        return NOTHING
    if stored.banned and (stored.ban_expires_at is None or stored.ban_expires_at > at):
        return CredentialStanding(changes_at=_epoch(stored.ban_expires_at))
    expires_at = _epoch(stored.expires_at)
    return CredentialStanding(_principal_of(stored, expires_at), _networks_of(stored), expires_at)


def _principal_of(stored: StoredKey, expires_at: float | None) -> Principal:
    return Principal(
        user_id=stored.user_id,
        api_key_id=stored.public_id,
        allowed_models=frozenset(stored.allowed_models) or None,
        requests_per_minute=stored.requests_per_minute,
        tokens_per_minute=stored.tokens_per_minute,
        parallel_requests=stored.parallel_requests,
        limit_day=stored.limit_day,
        limit_month=stored.limit_month,
        limit_total=stored.limit_total,
        expires_at=expires_at,
    )


def _networks_of(stored: StoredKey) -> tuple[addresses.Network, ...] | None:
    """Parse the allow-list; a list of which nothing can be read allows nothing."""
    if not stored.allowed_addresses:
        return None
    parsed = map(addresses.parse_network, stored.allowed_addresses)
    return tuple(network for network in parsed if network is not None)


def _epoch(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


class APIKeys:
    """`sk-airi-`, the public id, the secret: fixed lengths, letters and digits."""

    def recognizes(self, token: str) -> bool:
        return (
            len(token) == KEY_LENGTH
            and token.startswith(KEY_PREFIX)
            and BASE62.issuperset(token[len(KEY_PREFIX) :])
        )

    async def resolve(self, token: str, *, at: datetime) -> CredentialStanding:
        secret_hash = hash_of(token)
        params = {"public_id": public_id_of(token), "secret_hash": secret_hash, "at": at}
        rows = await database.fetch(_authenticate_key_sql, params)
        stored = StoredKey(*rows[0]) if rows else None
        return standing_of(stored, secret_hash=secret_hash, at=at)

    def resolve_sync(self, token: str, *, at: datetime) -> CredentialStanding:
        secret_hash = hash_of(token)
        keys = APIKey.objects.filter(public_id=public_id_of(token))
        row = keys.order_by("id").values_list(*COLUMNS).first()
        stored = StoredKey(*row) if row else None
        before = at - TOUCH_EVERY
        unused = Q(last_used_at=None) | Q(last_used_at__lte=before)
        is_touched = keys.filter(unused, secret_hash=secret_hash).update(last_used_at=at)
        if stored and is_touched:
            unseen = Q(last_seen_at=None) | Q(last_seen_at__lte=before)
            User.objects.filter(unseen, pk=stored.user_id).update(last_seen_at=at)
        return standing_of(stored, secret_hash=secret_hash, at=at)


def hash_of(key: str) -> bytes:
    """Return what is stored of a key. A 238-bit random secret needs no salt and no slow hash."""
    return hashlib.sha256(key.encode("ascii")).digest()


def public_id_of(key: str) -> str:
    return key[len(KEY_PREFIX) : len(KEY_PREFIX) + PUBLIC_ID_LENGTH]


def without_secret(text: str) -> str:
    """Return what somebody pasted, without the secret if it is a key that they pasted."""
    text = text.strip()
    if not text.startswith(KEY_PREFIX):
        return text
    return text[: len(KEY_PREFIX) + PUBLIC_ID_LENGTH]


KINDS: Final[tuple[CredentialKind, ...]] = (APIKeys(),)


def kind_of(token: str) -> CredentialKind | None:
    """Return the kind that recognizes the token, if any does."""
    return next((kind for kind in KINDS if kind.recognizes(token)), None)
