"""The models of the protocol as JSON Schema."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from chats import protocol

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

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
MODELS: Final[dict[type[BaseModel], Mode]] = {
    **dict.fromkeys(_RECEIVED, "validation"),
    **dict.fromkeys(_SENT, "serialization"),
}
"""What is published, and whether the server reads it or writes it."""


def definitions(*, ref: str) -> dict[str, Schema]:
    """Return every model by its name, and those it is made of.

    Args:
        ref: Where a definition is found, with `{model}` for its name.
    """
    _, schema = models_json_schema(list(MODELS.items()), ref_template=ref)
    return {name: _plain(made) for name, made in sorted(schema["$defs"].items())}


def document() -> Schema:
    """Return the document of all bodies and envelopes; as a whole it describes any frame."""
    envelopes = (protocol.EnvelopeA, protocol.EnvelopeB, protocol.EnvelopeMerged)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Frames of /ws/chat and /ws/v2/chat",
        "description": "A client sends EnvelopeA or EnvelopeB, the server EnvelopeMerged.",
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in envelopes],
        "$defs": definitions(ref="#/$defs/{model}"),
    }


def _plain(schema: Schema) -> Schema:
    """Drop what pydantic adds to properties and nobody reads: titles, and null as a default."""
    properties = {name: dict(made) for name, made in schema.get("properties", {}).items()}
    for made in properties.values():
        made.pop("title", None)
        if made.get("default", ...) is None:
            del made["default"]
    return {**schema, "properties": properties}
