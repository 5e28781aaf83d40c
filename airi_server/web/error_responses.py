"""Refusals as HTTP responses: the one place that turns an error into bytes.

`/v1` and `/api/v1/openai` speak OpenAI's error object, what people look at is a page
(`error_pages`), everything else has our envelope. A crash is logged here, once, with its traceback.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import orjson
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import InternalError, OperationalError
from django.http import HttpRequest, HttpResponse

from airi_server.kernel import context, database, refusals, validation
from airi_server.kernel.errors import (
    DomainError,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServerError,
    Unavailable,
)
from airi_server.pages import error_pages
from airi_server.web import hosts, nearby

logger = logging.getLogger(__name__)
OPENAI_SURFACE: Final = ("/v1/", "/api/v1/openai")
AWAY: Final = (*database.AWAY, OperationalError)
"""What both ways to the database raise while it is away, or busy."""
SERVER_ERROR: Final = 500
MAX_REASON: Final = 200


class MethodNotAllowed(DomainError):
    """The path is routed, for other methods."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


def of(error: DomainError, path: str) -> HttpResponse:
    """Return the answer to an anticipated refusal, and note how it is answered."""
    note = context.refused()
    note.status, note.code, note.message = error.status, error.code, error.message
    covers = error_pages.covers(path)
    response = error_pages.of(error, path) if covers else _of_program(error, path)
    if response.status_code >= SERVER_ERROR:
        # Its reason is in the log, or in the line of its exchange: Django would write one more.
        response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  Django's own mark
    return response


def _of_program(error: DomainError, path: str) -> HttpResponse:
    shape = refusals.openai if path.startswith(OPENAI_SURFACE) else refusals.envelope
    return HttpResponse(
        orjson.dumps(shape(error)),
        status=error.status,
        content_type="application/json",
        headers={**getattr(error, "headers", {}), **refusals.headers(error)},
    )


def is_database_away(bug: BaseException) -> bool:
    """Return whether an exception only says that PostgreSQL is away, busy, or a standby yet."""
    return isinstance(bug, AWAY) or (
        # A standby that is not promoted refuses to write, which Django calls internal.
        isinstance(bug, InternalError) and isinstance(bug.__cause__, database.AWAY)
    )


def failed(bug: BaseException, path: str) -> HttpResponse:
    """Return the answer to an unexpected exception, and see to it that the log says why."""
    return database_away(bug, path) if is_database_away(bug) else unexpected(bug, path)


def database_away(away: BaseException, path: str) -> HttpResponse:
    """Return the answer while PostgreSQL is away: nothing was done, come back."""
    context.add_to_line({"reason": _in_a_line(away)})
    return of(Unavailable("The service is not available right now.", retry_after_s=1), path)


def unexpected(bug: BaseException, path: str) -> HttpResponse:
    """Log a bug with its traceback and return the answer that says nothing about it."""
    log_crash(bug, path)
    return of(ServerError("Internal Server Error"), path)


def log_crash(bug: BaseException, path: str) -> None:
    """Log a bug with its traceback; a database that is away is none, and one line."""
    if is_database_away(bug):
        extra = {"path": path, "reason": _in_a_line(bug)}
        logger.warning("The database went away under an answer", extra=extra)
    else:
        logger.error("A request crashed", exc_info=bug, extra={"path": path})


def _in_a_line(bug: BaseException) -> str:
    return f"{type(bug).__name__}: {' '.join(str(bug).split())}"[:MAX_REASON]


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the answer for what is not routed."""
    if error_pages.covers(request.path):
        return of(NotFound(f"No route matched {request.method} {request.path}."), request.path)
    return not_routed(request)


def not_routed(request: HttpRequest, *, allow: str = "") -> HttpResponse:
    """Return the answer with what exists near it, and the way to the user interface.

    `allow` are the methods that this path does take. It is 404 all the same (contract §1.3), except
    under `/v1`, which the contract does not have.
    """
    path = request.path
    said = f"No route matched {request.method} {validation.shown(path)}."
    hint = f"It takes {allow}." if allow else nearby.hint(path)
    refusal = MethodNotAllowed if allow and path.startswith("/v1/") else NotFound
    # An OpenAI SDK that was sent to the wrong place reads OpenAI's object all the same.
    shape = "/v1/" if nearby.is_rootless(path) else path
    response = of(refusal(f"{said} {hint}".strip()), shape)
    if allow:
        response.headers["Allow"] = allow
    body = orjson.loads(response.content) | {"ui": settings.WEB_APP_URL}
    response.content = orjson.dumps(body)
    return response


def malformed(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the answer to what Django refuses before or in a view, and log it in one line."""
    if isinstance(exception, DisallowedHost):
        return of(hosts.refuse(request.META.get("HTTP_HOST", ""), request.path), request.path)
    reason = type(exception).__name__
    logger.warning("Malformed request", extra={"reason": reason, "path": request.path})
    return of(InvalidRequest("The request is not valid."), request.path)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the answer to somebody without the permission; programs learn of nothing here."""
    if error_pages.covers(request.path):
        return of(Forbidden("You may not do this."), request.path)
    return not_found(request)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the answer to a form without a valid CSRF token (`CSRF_FAILURE_VIEW`)."""
    if error_pages.covers(request.path):
        return error_pages.page(403, error_pages.STALE_FORM, request.path)
    return not_found(request)


def session_over(request: HttpRequest) -> HttpResponse:
    """Return the page for a form that came from nobody who is logged in."""
    return error_pages.page(403, error_pages.SESSION_OVER, request.path)


def method_not_allowed(request: HttpRequest) -> HttpResponse:
    """Return the page for a method that an address does not take."""
    return error_pages.page(405, error_pages.NOT_ALLOWED, request.path)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the answer to what escaped a view or a middleware, which Django has in its hands."""
    bug = sys.exc_info()[1]
    if bug is None:
        return of(ServerError("Internal Server Error"), request.path)
    return failed(bug, request.path)
