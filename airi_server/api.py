"""The HTTP API: mounts every router and turns errors into responses, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.operation import Operation
from ninja.parser import Parser

from accounts.api.keys import router as keys_router
from accounts.auth import HotKeyAuth, KeyAuth
from airi_server.kernel import validation
from airi_server.kernel.errors import DomainError, InvalidRequest
from airi_server.web import error_responses
from billing.api.flux import router as flux_router
from billing.api.operators import router as grants_router
from chats.api.chats import router as chats_router
from chats.api.tickets import router as tickets_router
from chats.characters.api.characters import router as characters_router
from llmrouter.api.openai import compatible_router
from llmrouter.api.openai import router as openai_router
from llmrouter.api.operators import router as router_config_router

OPERATORS: Final = "/api/admin/"


class StrictParser(Parser):
    """JSON by the book: no NaN, no halves of surrogate pairs, nothing a thousand levels deep."""

    def parse_body(self, request: HttpRequest) -> Any:
        return orjson.loads(request.body)


class InvalidOperatorBody(InvalidRequest):
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


class HTTPAPI(NinjaAPI):
    """ninja's API; an operation is named by its function, wherever that stands."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        name: str = operation.view_func.__name__
        return name


api = HTTPAPI(
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
    return error_responses.of(error, request.path)


@api.exception_handler(ValidationError)
def refuse_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    invalid = _invalid(request)
    details = [detail for fault in error.errors for detail in _detail(fault)]
    sentence = validation.sentence(details)
    details = details[: validation.MAX_FAULTS]
    return error_responses.of(invalid(sentence, details=details), request.path)


def _detail(fault: dict[str, Any]) -> list[validation.Detail]:
    # Ninja names where it is, and its own argument before a path that begins in the body.
    return validation.details_of([fault], skip=2 if fault["loc"][0] == "body" else 1)


@api.exception_handler(HttpError)
def refuse_malformed(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Ninja's own complaints, which are about bodies it could not parse."""
    why, invalid = error.__cause__, _invalid(request)
    if not isinstance(why, orjson.JSONDecodeError):
        return error_responses.of(invalid(str(error)), request.path)
    said = validation.malformed_json(why, request.body)
    return error_responses.of(invalid(said), request.path)


def _invalid(request: HttpRequest) -> type[InvalidRequest]:
    return InvalidOperatorBody if request.path.startswith(OPERATORS) else InvalidRequest


@api.exception_handler(Exception)
def fail(request: HttpRequest, bug: Exception) -> HttpResponse:
    """A bug, or the database is away."""
    return error_responses.failed(bug, request.path)
