"""Refusals as HTTP responses: the one place that turns an error into bytes.

`/v1` and `/api/v1/openai` speak OpenAI's error object, everything else our envelope.
"""

from __future__ import annotations

import logging
from typing import Final

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from airi_server.kernel import refusals
from airi_server.kernel.errors import DomainError, InvalidRequest, NotFound, Unavailable

logger = logging.getLogger(__name__)
OPENAI_SURFACE: Final = ("/v1/", "/api/v1/openai")


class ServerError(DomainError):
    """A bug. The client learns nothing about it; the log does."""

    code = "INTERNAL_SERVER_ERROR"
    status = 500


def of(error: DomainError, path: str) -> HttpResponse:
    """Return the answer to an anticipated refusal."""
    shape = refusals.openai if path.startswith(OPENAI_SURFACE) else refusals.envelope
    return HttpResponse(
        orjson.dumps(shape(error)),
        status=error.status,
        content_type="application/json",
        headers={**getattr(error, "headers", {}), **refusals.headers(error)},
    )


def database_away(path: str) -> HttpResponse:
    """Return the answer while PostgreSQL is away: nothing was done, come back."""
    return of(Unavailable("The service is not available right now.", retry_after_s=1), path)


def unexpected(bug: BaseException, path: str) -> HttpResponse:
    """Log a bug with its traceback and return the answer that says nothing about it."""
    logger.error("A request crashed", exc_info=bug, extra={"path": path})
    return of(ServerError("Internal Server Error"), path)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the answer for what is not routed, with the way to the user interface."""
    response = of(NotFound(f"No route matched {request.method} {request.path}."), request.path)
    body = orjson.loads(response.content) | {"ui": settings.WEB_APP_URL}
    response.content = orjson.dumps(body)
    return response


def malformed(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the answer to what Django refuses before a view sees it: a bad `Host`, mostly."""
    return of(InvalidRequest("The request is not valid."), request.path)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return Django's last resort in our shape; Django has logged the exception."""
    return of(ServerError("Internal Server Error"), request.path)
