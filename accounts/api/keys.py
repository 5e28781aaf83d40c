"""`/api/v1/keys`: a user's own API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from django.http import HttpResponse
from django.utils import timezone
from ninja import Router, Status
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from accounts import keys
from accounts.auth import AuthedRequest
from accounts.models import APIKey
from airi_server.kernel.schemas import ErrorBody, Instant

MAX_FLUX: Final = 2**53 - 1  # what JavaScript counts exactly
LIMIT: Final = "limit_"


def _storable(text: str) -> str:
    """Refuse what PostgreSQL cannot keep: NUL, and halves of surrogate pairs."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


def _instant(value: Any) -> Any:
    """Read ISO 8601 with an offset; strict mode would refuse every string."""
    if not isinstance(value, str):
        return value
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time in ISO 8601, like 2030-01-31T12:00:00Z") from None
    if instant.tzinfo is None:
        raise ValueError("must have an offset, like 2030-01-31T12:00:00Z")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


STORABLE: Final = AfterValidator(_storable)
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), STORABLE
]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200), STORABLE]
AddressText = Annotated[str, StringConstraints(min_length=1, max_length=64), STORABLE]
ModelNames = Annotated[list[ModelName], Field(max_length=100)]
AddressTexts = Annotated[list[AddressText], Field(max_length=100)]
Flux = Annotated[int, Field(ge=1, le=MAX_FLUX)]
InstantIn = Annotated[datetime, BeforeValidator(_instant)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class LimitsIn(_In):
    """Spending limits in whole Flux; null is no limit, what is missing stays as it is."""

    day: Flux | None = None
    month: Flux | None = None
    total: Flux | None = None


class _Settings(_In):
    """What an owner may set. Rates are the operator's, in the admin: an owner could lift them."""

    expires_at: InstantIn | None = None
    allowed_models: ModelNames = []
    allowed_addresses: AddressTexts = []
    limits: LimitsIn = LimitsIn()

    def named(self) -> dict[str, Any]:
        """Return what the client named, as `accounts.keys` calls it."""
        named = self.model_dump(exclude_unset=True)
        limits = named.pop("limits", {})
        if named.get("disabled", True) is None:
            del named["disabled"]
        return named | {LIMIT + period: flux for period, flux in limits.items()}


class KeyIn(_Settings):
    """A key to make. Lists that are empty or missing allow everything."""

    name: Name


class KeyPatch(_Settings):
    """What to change about a key; what is missing stays as it is."""

    name: Name = ""
    # One way: an operator may know why it is off.
    disabled: Literal[True] | None = None


class LimitsOut(_Out):
    day: int | None
    month: int | None
    total: int | None


class KeyOut(_Out):
    """A key as its owner sees it; the secret is not kept."""

    id: str
    name: str
    prefix: str
    created_at: Instant
    expires_at: Instant | None
    disabled: bool
    last_used_at: Instant | None
    allowed_models: list[str]
    allowed_addresses: list[str]
    limits: LimitsOut
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel_requests: int | None

    @classmethod
    def of(cls, key: APIKey, /, **more: Any) -> Self:
        return cls(
            id=key.public_id,
            name=key.name,
            prefix=key.prefix,
            created_at=key.created_at,
            expires_at=key.expires_at,
            disabled=key.disabled_at is not None,
            last_used_at=key.last_used_at,
            allowed_models=key.allowed_models,
            allowed_addresses=key.allowed_addresses,
            limits=LimitsOut(day=key.limit_day, month=key.limit_month, total=key.limit_total),
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
            parallel_requests=key.parallel_requests,
            **more,
        )


class NewKeyOut(KeyOut):
    """The answer to making a key: the only time the whole key is shown."""

    key: Annotated[str, Field(repr=False)]


router = Router(tags=["API keys"], by_alias=True)

REFUSALS: Final[dict[int, Any]] = {401: ErrorBody, 403: ErrorBody}


@router.get("", response={200: list[KeyOut], **REFUSALS})
def list_keys(request: AuthedRequest) -> Any:
    """List your keys, newest first. Secrets are not kept and cannot be shown again."""
    return [KeyOut.of(key) for key in keys.of_user(request.auth.user_id)]


@router.post("", response={201: NewKeyOut, 400: ErrorBody, **REFUSALS, 409: ErrorBody})
def create_key(request: AuthedRequest, response: HttpResponse, payload: KeyIn) -> Any:
    """Make a key. `key` in the answer is the only time you see it.

    A key with limits, an expiry or allow-lists cannot make, change or delete keys.
    """
    _ensure_may_manage(request)
    made, plaintext = keys.create(
        user_id=request.auth.user_id, at=timezone.now(), **payload.named()
    )
    response["Cache-Control"] = "no-store"
    return Status(201, NewKeyOut.of(made, key=plaintext))


@router.patch("/{id}", response={200: KeyOut, 400: ErrorBody, **REFUSALS, 404: ErrorBody})
def change_key(request: AuthedRequest, id: str, payload: KeyPatch) -> Any:  # noqa: A002  its name on the wire
    """Change a key; what you do not name stays as it is. Disabling is final.

    Null removes a limit or the expiry; an empty list allows everything.
    """
    _ensure_may_manage(request)
    changed = keys.change(
        user_id=request.auth.user_id, public_id=id, at=timezone.now(), **payload.named()
    )
    return KeyOut.of(changed)


@router.delete("/{id}", response={204: None, **REFUSALS, 404: ErrorBody})
def delete_key(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Delete a key. Whatever uses it is refused from now on."""
    _ensure_may_manage(request)
    keys.delete(user_id=request.auth.user_id, public_id=id)
    return Status(204, None)


def _ensure_may_manage(request: AuthedRequest) -> None:
    keys.ensure_may_manage(user_id=request.auth.user_id, public_id=request.auth.api_key_id)
