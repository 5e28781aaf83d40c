"""The HTTP API: mounts every router and turns errors into responses, once."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import OperationalError
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
from llmrouter.api import compatible_router
from llmrouter.api import router as openai_router


class StrictParser(Parser):
    """JSON by the book: no NaN, no halves of surrogate pairs, nothing a thousand levels deep."""

    def parse_body(self, request: HttpRequest) -> Any:
        return orjson.loads(request.body)


api = NinjaAPI(
    title="AIRI server",
    version="1",
    description="OpenAI-compatible gateway on prepaid Flux.",
    docs_url=None,
    openapi_url="/api/openapi.json",
    urls_namespace="api",
    parser=StrictParser(),
)
api.add_router("/v1", openai_router, auth=HotKeyAuth())
api.add_router("/api/v1/openai", compatible_router, auth=HotKeyAuth())
api.add_router("/api/v1/flux", flux_router, auth=HotKeyAuth())
api.add_router("/api/v1/keys", keys_router, auth=KeyAuth())


@api.exception_handler(DomainError)
def refuse(request: HttpRequest, error: DomainError) -> HttpResponse:
    return refusal_responses.of(error, request.path)


@api.exception_handler(ValidationError)
def refuse_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    details = [
        {"path": ".".join(str(step) for step in fault["loc"][1:]), "message": fault["msg"]}
        for fault in error.errors
    ]
    return refusal_responses.of(
        InvalidRequest("The request is not valid.", details=details), request.path
    )


@api.exception_handler(HttpError)
def refuse_malformed(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Ninja's own complaints, which are about bodies it could not parse."""
    return refusal_responses.of(InvalidRequest(str(error)), request.path)


def _database_away(request: HttpRequest, _error: Any) -> HttpResponse:
    return refusal_responses.database_away(request.path)


for away in (*database.AWAY, OperationalError):
    api.add_exception_handler(away, _database_away)


@api.exception_handler(Exception)
def crash(request: HttpRequest, bug: Exception) -> HttpResponse:
    return refusal_responses.unexpected(bug, request.path)
