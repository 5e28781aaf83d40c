"""The models of the protocol as JSON Schema, by pydantic's own generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from chats.sockets import protocol

Schema = dict[str, Any]
Models = Mapping[type[BaseModel], Literal["validation", "serialization"]]
"""What is published, and whether the server reads it or writes it."""

_RECEIVED: Final[tuple[type[BaseModel], ...]] = (
    protocol.EnvelopeA,
    protocol.EnvelopeB,
    protocol.Invocation,
    *(call.request for call in protocol.CALLS.values()),
)
_SENT: Final[tuple[type[BaseModel], ...]] = (
    protocol.EnvelopeMerged,
    protocol.Answer,
    *(call.response for call in protocol.CALLS.values()),
    protocol.Rejection,
    *protocol.EVENTS.values(),
)
MODELS: Final[Models] = {
    **dict.fromkeys(_RECEIVED, "validation"),
    **dict.fromkeys(_SENT, "serialization"),
}


class Generator(GenerateJsonSchema):
    """Leaves out what nobody reads: titles of fields, and null as a default."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made


def definitions(models: Models, *, ref: str) -> dict[str, Schema]:
    """Return every model by its name, and those it is made of.

    Args:
        models: What is asked for.
        ref: Where a definition is found, with `{model}` for its name.
    """
    _, schema = models_json_schema(
        list(models.items()), ref_template=ref, schema_generator=Generator
    )
    return dict(sorted(schema["$defs"].items()))


def document() -> Schema:
    """Return the document of all bodies and envelopes; as a whole it describes any frame."""
    envelopes = (protocol.EnvelopeA, protocol.EnvelopeB, protocol.EnvelopeMerged)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Frames of /ws/chat and /ws/v2/chat",
        "description": "A client sends EnvelopeA or EnvelopeB, the server EnvelopeMerged.",
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in envelopes],
        "$defs": definitions(MODELS, ref="#/$defs/{model}"),
    }
