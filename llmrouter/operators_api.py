"""`/api/admin/config/router`: the router's configuration for programs, as slices."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Router

from accounts import operators
from accounts.auth import KeyAuth
from airi_server.kernel.schemas import ErrorBody
from airi_server.runtime.audit import Actor
from llmrouter import operator_schemas
from llmrouter.configuration import kinds, readback, seeding, slices

PERMISSION: Final = "llmrouter.publish_router_config"
REFUSALS: Final[dict[int, Any]] = {401: ErrorBody, 403: ErrorBody}


class PublisherAuth(KeyAuth):
    """Who may publish. Asked before the body is read: a stranger learns nothing from its faults."""

    def __call__(self, request: HttpRequest) -> Actor:  # type: ignore[override]  # the operator
        return operators.ensure(super().__call__(request), PERMISSION)


class PublisherRequest(HttpRequest):
    """An `HttpRequest` of somebody who may publish. Exists for the type checker."""

    auth: Actor


router = Router(tags=["Operators"], auth=PublisherAuth(), by_alias=True)


@router.get("", response={200: operator_schemas.ReadbackOut, **REFUSALS})
def read_router_config(request: PublisherRequest, response: HttpResponse) -> Any:
    """Return the configuration in force as a request that would write it again.

    Keys are named, never shown. Models that a slice cannot stand for, because they have several
    upstreams or keys, are listed in `unrepresented` and not in the request.
    """
    response["Cache-Control"] = "no-store"
    return operator_schemas.ReadbackOut.of(readback.read(), at=timezone.now())


@router.post(
    "",
    response={200: operator_schemas.SeededOut, 400: ErrorBody, **REFUSALS},
    openapi_extra=operator_schemas.SEED_REQUEST,
)
def seed_router_config(request: PublisherRequest, response: HttpResponse) -> Any:
    """Write slices: all of them in one transaction, or none.

    `merge` keeps what is not named; `reset` keeps only the models that are. A slice without a
    `plaintextKey` keeps the key that is there. With `dryRun` nothing is written.
    """
    given = slices.parse(request.body)
    seeded = seeding.seed(given, by=request.auth, at=timezone.now(), note=_note(given))
    response["Cache-Control"] = "no-store"
    return operator_schemas.SeededOut.of(seeded)


def _note(given: slices.Seed) -> str:
    names = [
        each.kind if isinstance(each, kinds.Unspeech) else each.model_name for each in given.slices
    ]
    return f"{given.mode} over the API: {', '.join(names) or 'defaults'}"
