"""The OpenAI surface as it is documented. Bodies pass through: unknown fields are the client's."""

from __future__ import annotations

from typing import Any, Final

from ninja import Schema


class OpenAIError(Schema):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(Schema):
    """Every refusal on this surface; `message` repeats the error's for the older clients."""

    error: OpenAIError
    message: str
    details: Any = None


class Model(Schema):
    """One model a client may name."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class ModelList(Schema):
    """Every model the caller may use."""

    object: str = "list"
    data: list[Model]


CHAT_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "An OpenAI chat completion request. Fields not listed here "
                    "are forwarded to the upstream as they are.",
                    "required": ["messages"],
                    "additionalProperties": True,
                    "properties": {
                        "model": {
                            "type": "string",
                            "maxLength": 200,
                            "default": "auto",
                            "description": "A name from `/v1/models`; `auto` or nothing is the "
                            "operator's default.",
                        },
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "stream": {"type": "boolean", "default": False},
                        "stream_options": {"type": "object"},
                        "max_tokens": {"type": "integer", "minimum": 1},
                        "max_completion_tokens": {"type": "integer", "minimum": 1},
                        "n": {"type": "integer", "minimum": 1, "maximum": 128},
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "A repeated key is answered from the first request, once paid.",
        }
    ],
}
