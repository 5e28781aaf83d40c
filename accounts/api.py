"""`/api/v1/keys`: a user's own API keys."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpResponse
from django.utils import timezone
from ninja import Router, Status

from accounts import keys
from accounts.auth import AuthedRequest
from accounts.schemas import KeyIn, KeyOut, KeyPatch, NewKeyOut
from airi_server.kernel.schemas import ErrorBody

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
