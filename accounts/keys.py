"""API keys: made once, shown once, changed by their owner, and forgotten.

Whatever changes what a key may do empties the memories of `accounts.auth` on every instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypedDict, Unpack

from django.db import transaction

from accounts import addresses, credentials
from accounts.models import KEY_PREFIX, APIKey, User
from airi_server.kernel import ids
from airi_server.kernel.errors import Conflict, Forbidden, InvalidRequest, NotFound
from airi_server.runtime import published

MAX_PER_USER: Final = 100
IMMATERIAL: Final = frozenset({"name"})
"""Settings that authentication does not look at."""


class KeySettings(TypedDict, total=False):
    """What can be set.

    Limits in whole Flux, None is no limit. Rates: None is the operator's default, 0 is no limit.
    An empty list allows everything.
    """

    expires_at: datetime | None
    allowed_models: Sequence[str]
    allowed_addresses: Sequence[str]
    limit_day: int | None
    limit_month: int | None
    limit_total: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel_requests: int | None


class KeyChanges(KeySettings, total=False):
    """Settings of a key that exists. Disabling again keeps the first time; False enables."""

    name: str
    disabled: bool


class TooManyKeys(Conflict):
    """The user has as many keys as anybody may have."""


class RestrictedKey(Forbidden):
    """A key that may do less than its user manages no keys: it could lift its own limits."""


def create(
    *, user_id: str, name: str, at: datetime, **settings: Unpack[KeySettings]
) -> tuple[APIKey, str]:
    """Make a key and return it with its plaintext, which is stored nowhere.

    Raises:
        NotFound: There is no such user.
        TooManyKeys: The user has `MAX_PER_USER` already.
        InvalidRequest: The expiry has passed, or an address cannot be read.
    """
    columns = _columns(settings, at)
    public_id = ids.base62(credentials.PUBLIC_ID_LENGTH)
    plaintext = KEY_PREFIX + public_id + ids.base62(credentials.SECRET_LENGTH)
    with transaction.atomic():
        # The lock on the user makes the count true until we commit.
        if not User.objects.select_for_update(no_key=True).filter(pk=user_id).exists():
            raise NotFound("There is no such user.")
        if APIKey.objects.filter(user_id=user_id).count() >= MAX_PER_USER:
            raise TooManyKeys(f"A user may have {MAX_PER_USER} keys. Delete one first.")
        key = APIKey.objects.create(
            public_id=public_id,
            user_id=user_id,
            name=name,
            secret_hash=credentials.hash_of(plaintext),
            created_at=at,
            **columns,
        )
    return key, plaintext


def change(*, user_id: str, public_id: str, at: datetime, **changes: Unpack[KeyChanges]) -> APIKey:
    """Change what is named and leave the rest.

    Raises:
        NotFound: The user has no such key.
        InvalidRequest: The expiry has passed, or an address cannot be read.
    """
    columns = _columns(changes, at)
    with transaction.atomic():
        key = _locked(user_id, public_id)
        if "disabled" in changes:
            columns["disabled_at"] = (key.disabled_at or at) if changes["disabled"] else None
        for column, value in columns.items():
            setattr(key, column, value)
        if columns:
            key.save(update_fields=list(columns))
        if columns.keys() - IMMATERIAL:
            published.announce("credentials")
    return key


def disable(*, user_id: str, public_id: str, at: datetime) -> APIKey:
    """Refuse the key from now on; again keeps the first time.

    Raises:
        NotFound: The user has no such key.
    """
    return change(user_id=user_id, public_id=public_id, at=at, disabled=True)


def delete(*, user_id: str, public_id: str) -> None:
    """Forget the key. What it spent stays in the ledger, under its public id.

    Raises:
        NotFound: The user has no such key.
    """
    with transaction.atomic():
        _locked(user_id, public_id).delete()
        published.announce("credentials")


def of_user(user_id: str) -> list[APIKey]:
    """Return a user's keys, newest first."""
    return list(APIKey.objects.filter(user_id=user_id).order_by("-id")[:MAX_PER_USER])


def named(public_id: str) -> str:
    """Return the part of a key that may be shown, whether it still exists or not."""
    return KEY_PREFIX + public_id


def public_id_in(text: str) -> str | None:
    """Return the public id of the key that `text` begins, if it is one."""
    if not text.startswith(KEY_PREFIX):
        return None
    return text[len(KEY_PREFIX) : len(KEY_PREFIX) + credentials.PUBLIC_ID_LENGTH]


def owner_of(public_id: str) -> str | None:
    """Return the user that a key, which still exists, belongs to."""
    found = APIKey.objects.filter(public_id=public_id).order_by("id")
    return found.values_list("user_id", flat=True).first()


def ensure_may_manage(*, user_id: str, public_id: str | None) -> None:
    """Let a caller pass who came without a key, or with one that has no restriction.

    Raises:
        RestrictedKey: The key has limits, an expiry or allow-lists, or is gone by now.
    """
    if public_id is None:
        return
    key = APIKey.objects.filter(user_id=user_id, public_id=public_id).order_by("id").first()
    if key is None or key.is_restricted:
        raise RestrictedKey("A restricted key cannot manage keys.")


def _locked(user_id: str, public_id: str) -> APIKey:
    """Return the key, locked; authentication skips a locked key rather than wait."""
    keys = APIKey.objects.select_for_update(no_key=True).order_by("id")
    may_exist = credentials.BASE62.issuperset(public_id)
    key = keys.filter(user_id=user_id, public_id=public_id).first() if may_exist else None
    if key is None:
        raise NotFound("There is no such key.")
    return key


def _columns(settings: KeySettings | KeyChanges, at: datetime) -> dict[str, object]:
    """Return the settings as columns: lists without doubles, networks in one spelling."""
    columns = {name: value for name, value in settings.items() if name != "disabled"}
    expires_at = settings.get("expires_at")
    if expires_at is not None and expires_at <= at:
        raise InvalidRequest("A key must expire in the future.", param="expiresAt")
    if "allowed_models" in settings:
        columns["allowed_models"] = list(dict.fromkeys(settings["allowed_models"]))
    if "allowed_addresses" in settings:
        networks = [_network(text) for text in settings["allowed_addresses"]]
        columns["allowed_addresses"] = list(dict.fromkeys(networks))
    return columns


def _network(text: str) -> str:
    network = addresses.parse_network(text)
    if network is None:
        raise InvalidRequest(f"{text!r} is not an address or network.", param="allowedAddresses")
    return str(network)
