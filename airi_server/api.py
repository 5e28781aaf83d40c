"""The HTTP API: mounts every router and turns errors into responses, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from django.db import InternalError, OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser

from accounts.api import router as keys_router
from accounts.auth import HotKeyAuth, KeyAuth
from airi_server import refusal_responses
from airi_server.kernel import database
from airi_server.kernel.errors import DomainError, InvalidRequest
from billing.api import router as flux_router
from billing.operators_api import router as grants_router
from chats.api import router as chats_router
from chats.characters.api import router as characters_router
from chats.ticket_routes import router as tickets_router
from llmrouter.api import compatible_router
from llmrouter.api import router as openai_router
from llmrouter.operators_api import router as router_config_router

OPERATORS: Final = "/api/admin/"


class StrictParser(Parser):
    """JSON by the book: no NaN, no halves of surrogate pairs, nothing a thousand levels deep."""

    def parse_body(self, request: HttpRequest) -> Any:
        return orjson.loads(request.body)


class InvalidBody(InvalidRequest):
    """What operators' programs are told about a body (contract §1.3)."""

    code = "INVALID_BODY"


def made_once(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Keep the document that ninja makes anew for each request, which takes half a second."""
    kept: list[bytes] = []

    def document(request: HttpRequest, **parameters: Any) -> HttpResponse:
        if not kept:
            kept.append(view(request, **parameters).content)
        return HttpResponse(kept[0], content_type="application/json")

    return document


api = NinjaAPI(
    title="AIRI server",
    version="1",
    description="OpenAI-compatible gateway on prepaid Flux.",
    docs_url=None,
    openapi_url="/api/openapi.json",
    docs_decorator=made_once,
    urls_namespace="api",
    parser=StrictParser(),
)
api.add_router("/v1", openai_router, auth=HotKeyAuth())
api.add_router("/api/v1/openai", compatible_router, auth=HotKeyAuth())
api.add_router("/api/v1/flux", flux_router, auth=HotKeyAuth())
api.add_router("/api/v1/keys", keys_router, auth=KeyAuth())
api.add_router("/api/admin", grants_router, auth=KeyAuth())
api.add_router("/api/admin/config/router", router_config_router)
api.add_router("/api/v1/chats", chats_router, auth=KeyAuth())
api.add_router("/api/v1/ws-tickets", tickets_router, auth=KeyAuth())
api.add_router("/api/v1/characters", characters_router, auth=KeyAuth())


@api.exception_handler(DomainError)
def refuse(request: HttpRequest, error: DomainError) -> HttpResponse:
    return refusal_responses.of(error, request.path)


@api.exception_handler(ValidationError)
def refuse_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    invalid = _invalid(request)
    # Ninja names where it is ("body") and its own argument before a path that begins in the body.
    steps = 2 if invalid is InvalidBody else 1
    details = [
        {"path": ".".join(map(str, fault["loc"][steps:])), "message": fault["msg"]}
        for fault in error.errors
    ]
    return refusal_responses.of(invalid("The request is not valid.", details=details), request.path)


@api.exception_handler(HttpError)
def refuse_malformed(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Ninja's own complaints, which are about bodies it could not parse."""
    return refusal_responses.of(_invalid(request)(str(error)), request.path)


def _invalid(request: HttpRequest) -> type[InvalidRequest]:
    return InvalidBody if request.path.startswith(OPERATORS) else InvalidRequest


def _database_away(request: HttpRequest, _error: Any) -> HttpResponse:
    return refusal_responses.database_away(request.path)


for away in (*database.AWAY, OperationalError):
    api.add_exception_handler(away, _database_away)


@api.exception_handler(InternalError)
def refuse_to_write(request: HttpRequest, error: InternalError) -> HttpResponse:
    """What Django calls internal may be a standby that is not promoted yet."""
    if isinstance(error.__cause__, database.AWAY):
        return _database_away(request, error)
    return crash(request, error)


@api.exception_handler(Exception)
def crash(request: HttpRequest, bug: Exception) -> HttpResponse:
    return refusal_responses.unexpected(bug, request.path)
