"""The OpenAI surface over HTTP: parse, one call to the gateway, shape the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from ninja import Router, Schema

from accounts.auth import AuthedRequest
from airi_server.kernel import validation
from airi_server.kernel.errors import NotFound
from llmrouter.completions import chat_request, operation
from llmrouter.completions.operation import Call, Reply
from llmrouter.completions.streaming import StreamedCompletion
from llmrouter.configuration import options, publishing
from llmrouter.routing import planning


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
    """One model a client may name. `description` only where the name does not say what it is."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    description: str | None = None


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
                    "description": "An OpenAI chat completion request. Other fields of "
                    "OpenAI's and of usual dialects are passed on too; what is not is left out, "
                    "and named in the header `x-airi-dropped`.",
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
                        "messages": {
                            "type": "array",
                            "items": {"type": "object"},
                            "description": "The conversation, oldest message first.",
                        },
                        "stream": {
                            "type": "boolean",
                            "default": False,
                            "description": "Send the answer as it is generated.",
                        },
                        "stream_options": {
                            "type": "object",
                            "description": '`{"include_usage": true}`: a last chunk with the '
                            "tokens.",
                        },
                        "max_tokens": {
                            "type": "integer",
                            "minimum": 1,
                            "description": "The longest answer, in tokens; the model's own bound "
                            "and what your Flux pays for may be lower.",
                        },
                        "max_completion_tokens": {
                            "type": "integer",
                            "minimum": 1,
                            "description": "The same; it counts if both are given.",
                        },
                        "n": {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": 128,
                            "description": "How many answers; each is paid for.",
                        },
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


REFUSALS: Final[dict[int, type[OpenAIErrorBody]]] = dict.fromkeys(
    (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504), OpenAIErrorBody
)


async def create_chat_completion(request: AuthedRequest) -> HttpResponseBase:
    """Answer a chat completion through the router, charged once from the usage it reports.

    With `stream` the answer is `text/event-stream`, byte for byte as the upstream sends it.
    `x-request-id` names the request in `/api/v1/flux/requests`; `x-airi-flux-charged` is what
    it cost, on answers that are not streamed.
    """
    return _response(await operation.chat(_call(request)))


async def list_models(request: AuthedRequest) -> ModelList:
    """Return every model the caller may use: first `auto`, if they may use what it means now."""
    return ModelList(data=list(_models(request).values()))


async def retrieve_model(request: AuthedRequest, model_id: str) -> Model:
    """Return one model; its id may contain slashes."""
    models = _models(request)
    if model_id not in models:
        asked = f"There is no model '{validation.shown(model_id)}'."
        raise NotFound(f"{asked} {planning.listed(tuple(models))}", param="model")
    return models[model_id]


def _routed(operation_prefix: str) -> Router:
    """Return the surface as a router; it is mounted twice, so its operations are named apart."""
    made = Router(tags=["openai"])
    made.add_api_operation(
        "/chat/completions",
        ["POST"],
        create_chat_completion,
        operation_id=f"{operation_prefix}create_chat_completion",
        summary="Create a chat completion",
        response={200: dict[str, Any], **REFUSALS},
        openapi_extra=CHAT_REQUEST,
    )
    made.add_api_operation(
        "/models",
        ["GET"],
        list_models,
        operation_id=f"{operation_prefix}list_models",
        summary="List models",
        response={200: ModelList, **REFUSALS},
        exclude_none=True,
    )
    made.add_api_operation(
        "/models/{path:model_id}",
        ["GET"],
        retrieve_model,
        operation_id=f"{operation_prefix}retrieve_model",
        summary="Retrieve a model",
        response={200: Model, **REFUSALS},
        exclude_none=True,
    )
    return made


def _call(request: AuthedRequest) -> Call:
    return Call(
        principal=request.auth,
        body=request.body,
        client_key=request.META.get("HTTP_IDEMPOTENCY_KEY"),
        traceparent=request.META.get("HTTP_TRACEPARENT"),
        hops=request.META.get("HTTP_X_AIRI_HOPS"),
    )


def _response(reply: Reply) -> HttpResponseBase:
    response: HttpResponseBase
    if reply.stream is None:
        response = HttpResponse(reply.body, content_type=reply.content_type)
    else:
        response = StreamingHttpResponse(_parts(reply.stream), content_type=reply.content_type)
    for name, value in reply.headers:
        response[name] = value
    return response


async def _parts(stream: StreamedCompletion) -> AsyncIterator[bytes]:
    """Hand out a stream part by part; whoever stops asking has left."""
    try:
        async for part in stream.relay.parts():
            yield part
    finally:
        stream.leave()


def _models(request: AuthedRequest) -> dict[str, Model]:
    """Return the models of the caller by name; `auto` is no route, but what a caller may ask for.

    Raises:
        NotConfigured: Nothing has been published yet.
    """
    table, allowed = publishing.active(), request.auth.allowed_models
    found = {name: _model(name) for name in table.usable(allowed) if name != chat_request.AUTO}
    default = options.DEFAULT_CHAT_MODEL.current_or_none()
    may_ask = default in found or (allowed is not None and chat_request.AUTO in allowed)
    if default not in table.llm or not may_ask:
        return found
    described = f"What the operator has chosen as the default: {default} at present."
    return {chat_request.AUTO: _model(chat_request.AUTO, described), **found}


def _model(name: str, description: str | None = None) -> Model:
    return Model(id=name, created=0, owned_by="airi", description=description)


router = _routed("")
"""Mounted at `/v1`, where every OpenAI SDK looks."""

compatible_router = _routed("airi_")
"""Mounted at `/api/v1/openai`, where the existing AIRI clients look."""

# Some of those clients ask in the singular.
compatible_router.add_api_operation(
    "/chat/completion", ["POST"], create_chat_completion, include_in_schema=False
)
