"""The OpenAI surface over HTTP: parse, one call to the gateway, shape the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from ninja import Router

from accounts.auth import AuthedRequest
from airi_server.kernel.errors import NotFound
from llmrouter import gateway, schemas
from llmrouter.completions.streaming import Streaming
from llmrouter.configuration import publishing
from llmrouter.gateway import Call, Reply

REFUSALS: Final[dict[int, type[schemas.OpenAIErrorBody]]] = dict.fromkeys(
    (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504), schemas.OpenAIErrorBody
)


async def create_chat_completion(request: AuthedRequest) -> HttpResponseBase:
    """Answer a chat completion through the router, charged once from the usage it reports.

    With `stream` the answer is `text/event-stream`, byte for byte as the upstream sends it.
    `x-request-id` names the request in `/api/v1/flux/requests`; `x-airi-flux-charged` is what
    it cost, on answers that are not streamed.
    """
    return _response(await gateway.chat(_call(request)))


async def list_models(request: AuthedRequest) -> schemas.ModelList:
    """Return every model the caller may use, `auto` first."""
    return schemas.ModelList(data=[_model(name) for name in _names(request)])


async def retrieve_model(request: AuthedRequest, model_id: str) -> schemas.Model:
    """Return one model; its id may contain slashes."""
    if model_id not in _names(request):
        raise NotFound("There is no such model.", param="model")
    return _model(model_id)


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
        openapi_extra=schemas.CHAT_REQUEST,
    )
    made.add_api_operation(
        "/models",
        ["GET"],
        list_models,
        operation_id=f"{operation_prefix}list_models",
        summary="List models",
        response={200: schemas.ModelList, **REFUSALS},
    )
    made.add_api_operation(
        "/models/{path:model_id}",
        ["GET"],
        retrieve_model,
        operation_id=f"{operation_prefix}retrieve_model",
        summary="Retrieve a model",
        response={200: schemas.Model, **REFUSALS},
    )
    return made


def _call(request: AuthedRequest) -> Call:
    return Call(
        principal=request.auth,
        body=request.body,
        client_key=request.META.get("HTTP_IDEMPOTENCY_KEY"),
        traceparent=request.META.get("HTTP_TRACEPARENT"),
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


async def _parts(stream: Streaming) -> AsyncIterator[bytes]:
    """Hand out a stream part by part; whoever stops asking has left."""
    try:
        async for part in stream.relay.parts():
            yield part
    finally:
        stream.leave()


def _names(request: AuthedRequest) -> list[str]:
    allowed = request.auth.allowed_models
    table = publishing.active()
    return ["auto", *(name for name in table.available if allowed is None or name in allowed)]


def _model(name: str) -> schemas.Model:
    return schemas.Model(id=name, created=0, owned_by="airi")


router = _routed("")
"""Mounted at `/v1`, where every OpenAI SDK looks."""

compatible_router = _routed("airi_")
"""Mounted at `/api/v1/openai`, where the existing AIRI clients look."""

# Some of those clients ask in the singular.
compatible_router.add_api_operation(
    "/chat/completion", ["POST"], create_chat_completion, include_in_schema=False
)
