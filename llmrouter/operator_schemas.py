"""Shapes of `/api/admin/config/router` (contract §3.8, §16.9)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from airi_server.kernel.schemas import Instant
from llmrouter.configuration.readback import Readback
from llmrouter.configuration.seeding import Seeded
from llmrouter.configuration.slices import Seed

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
"""The body as documentation: it is read by `slices.parse`, whose refusals name their paths."""
