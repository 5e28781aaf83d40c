"""`/api/admin/config/router`: the router's configuration for programs, as slices."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Self

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Router
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from accounts import operators
from accounts.auth import KeyAuth
from airi_server.kernel.schemas import ErrorBody, Instant
from airi_server.runtime.audit import Actor
from llmrouter.configuration import readback
from llmrouter.configuration.readback import Readback
from llmrouter.configuration.seeding import providers, requests, seed
from llmrouter.configuration.seeding.requests import Seed
from llmrouter.configuration.seeding.seed import Seeded

REF: Final = "#/$defs/"


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class SeededOut(_Out):
    """What was written. `invalidatedKeys` names what changed; a dry run changes nothing."""

    applied: list[dict[str, str | None]]
    invalidated_keys: list[str]
    preview: dict[str, Any] = Field(description="What is in force now, without ciphertexts.")

    @classmethod
    def of(cls, seeded: Seeded) -> Self:
        return cls(applied=seeded.applied, invalidated_keys=seeded.changed, preview=seeded.preview)


class Unrepresented(_Out):
    """A model that no slice stands for, and why; merging a slice into it is refused."""

    surface: str
    model_name: str
    why: str


class ReadbackOut(_Out):
    """`request` may be posted as it is and changes nothing."""

    request: dict[str, Any]
    preview: dict[str, Any] = Field(description="What is in force, without ciphertexts.")
    loaded_at: Instant
    missing_keys: list[str] = Field(description="What has no value and no default yet.")
    unrepresented: list[Unrepresented]

    @classmethod
    def of(cls, found: Readback, *, at: datetime) -> Self:
        return cls(
            request=found.request,
            preview=found.preview,
            loaded_at=at,
            missing_keys=found.missing,
            unrepresented=[Unrepresented.model_validate(each) for each in found.unrepresented],
        )


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON schema with its definitions in the place of the references to them."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].removeprefix(REF)], definitions)
    # A discriminator's mapping names definitions, and each kind says its own name anyway.
    return {
        name: {"propertyName": item["propertyName"]}
        if name == "discriminator"
        else _inlined(item, definitions)
        for name, item in schema.items()
        if name != "$defs"
    }


def _seed_schema() -> Any:
    schema = Seed.model_json_schema(by_alias=True)
    return _inlined(schema, schema["$defs"])


SEED_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _seed_schema()}},
    }
}
"""The body as documentation: it is read by `requests.parse`, whose refusals name their paths."""


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


@router.get("", response={200: ReadbackOut, **REFUSALS})
def read_router_config(request: PublisherRequest, response: HttpResponse) -> Any:
    """Return the configuration in force as a request that would write it again.

    Keys are named, never shown. Models that a slice cannot stand for, because they have several
    upstreams or keys, are listed in `unrepresented` and not in the request.
    """
    response["Cache-Control"] = "no-store"
    return ReadbackOut.of(readback.read(), at=timezone.now())


@router.post(
    "",
    response={200: SeededOut, 400: ErrorBody, **REFUSALS},
    openapi_extra=SEED_REQUEST,
)
def seed_router_config(request: PublisherRequest, response: HttpResponse) -> Any:
    """Write slices: all of them in one transaction, or none.

    `merge` keeps what is not named; `reset` keeps only the models that are. A slice without a
    `plaintextKey` keeps the key that is there. With `dryRun` nothing is written.
    """
    given = requests.parse(request.body)
    seeded = seed.seed(given, by=request.auth, at=timezone.now(), note=_note(given))
    response["Cache-Control"] = "no-store"
    return SeededOut.of(seeded)


def _note(given: requests.Seed) -> str:
    names = [
        each.kind if isinstance(each, providers.Unspeech) else each.model_name
        for each in given.slices
    ]
    return f"{given.mode} over the API: {', '.join(names) or 'defaults'}"
