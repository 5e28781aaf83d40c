"""The lean entry: API requests reach their view without a thread, a task or middleware.

Django's own handler makes a thread-sensitive executor and two tasks for each request, and every
synchronous middleware costs a thread hop; together more than everything else this server does.
So for the paths of the hot path this entry reads the body, refreshes what operators published,
resolves the URL, awaits the view and sends what it returns. Chat completions, which are the load,
take the fast path past that too; everything else takes Django's way.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.core import signals
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.db import OperationalError
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    StreamingHttpResponse,
    parse_cookie,
)
from django.urls import Resolver404

from accounts import addresses, auth
from accounts.auth import Principal
from airi_server.kernel import context, database
from airi_server.kernel.errors import DomainError, InvalidRequest, Unauthorized, Unavailable
from airi_server.kernel.threads import in_thread
from airi_server.pages import error_pages
from airi_server.runtime import published
from airi_server.web import bodies, error_responses, fast_path
from airi_server.web.bodies import ClientLeft, IncomingBody, Message, Scope
from llmrouter.completions.stream_buffer import Pour, StreamAborted, Write

Send = Callable[[Message], Awaitable[None]]

HOT: Final = (*bodies.GATEWAY, "/api/v1/flux")
REFUSED: Final = 400
METHOD_NOT_ALLOWED: Final = 405
DJANGOS_REFUSALS: Final = (403, METHOD_NOT_ALLOWED)
BODILESS: Final = ("GET", "HEAD", "OPTIONS", "DELETE")


class OutgoingBody(NamedTuple):
    """What is sent: a whole body, or whatever writes it part by part."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Pour


class LeanASGIHandler(ASGIHandler):
    """Django's ASGI handler with a short way for the hot path."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if not scope["path"].startswith(HOT):
            await super().__call__(scope, receive, cast("Any", send))
            return
        way = _complete if fast_path.takes(scope) else self._view
        try:  # noqa: SIM105  this is the hot path, where `suppress` is an object and two calls
            await _send(await _answer(way, scope, receive), send)
        except ClientLeft:
            pass

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        """Take Django's way to its end, also where it breaks off.

        A thread's connection goes back to the pool when the request has finished, which Django says
        as it closes the answer. One that breaks while it is sent is not closed, and the pool would
        be one connection smaller for good.
        """
        try:
            await super().handle(scope, receive, send)
        except Exception:
            await signals.request_finished.asend(sender=type(self))
            raise

    async def _view(self, scope: Scope, receive: IncomingBody) -> OutgoingBody:
        """Await the view; whoever we know is told which path or method is not routed."""
        request = ASGIRequest(scope, io.BytesIO())
        await published.refresh()
        principal = await _read_for_known_callers(request, receive)
        allow = ""
        with contextlib.suppress(Resolver404):
            match = self.resolve_request(request)
            view = cast("Callable[..., Awaitable[HttpResponseBase]]", match.func)
            response = await view(request, *match.args, **match.kwargs)
            if response.status_code >= REFUSED:
                context.refused().is_of(principal.user_id, principal.api_key_id)
            if response.status_code != METHOD_NOT_ALLOWED:
                return _answer_of(response)
            allow = response.headers["Allow"]
        await auth.bearer(request)
        return _answer_of(error_responses.not_routed(request, allow=allow))

    async def read_body(self, receive: Any) -> io.BytesIO:
        """Read a body on Django's way, within the same bounds; it is small, so it stays here."""
        return io.BytesIO(await bodies.read(receive, partial(_sender, receive.scope)))

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Take Django's way; outside of the pages its own refusals become ours.

        A method without a view, or its protection of forms: there is nothing to be found.
        """
        response = await super().get_response_async(request)
        if response.status_code not in DJANGOS_REFUSALS:
            return response
        if error_pages.covers(request.path):
            is_ours = response.status_code != METHOD_NOT_ALLOWED
            return response if is_ours else _allowing(response, request)
        if response.headers.get("Content-Type") == "application/json":
            return response
        allow = response.headers.get("Allow", "")
        return error_responses.not_routed(request, allow=allow)


def _allowing(bare: HttpResponseBase, request: HttpRequest) -> HttpResponse:
    """Return the page in place of Django's answer without a body; what is allowed stays on it."""
    page = error_responses.method_not_allowed(request)
    page.headers["Allow"] = bare.headers.get("Allow", "")
    return page


async def _complete(scope: Scope, receive: IncomingBody) -> OutgoingBody:
    return OutgoingBody(200, *await fast_path.complete(scope, receive))


async def _answer(
    way: Callable[[Scope, IncomingBody], Awaitable[OutgoingBody]],
    scope: Scope,
    receive: IncomingBody,
) -> OutgoingBody:
    path = scope["path"]
    try:
        return await way(scope, receive)
    except ClientLeft:
        raise
    except DomainError as refused:
        return _answer_of(error_responses.of(refused, path))
    except UnicodeDecodeError:
        return _answer_of(error_responses.of(InvalidRequest("The request is not UTF-8."), path))
    except Exception as bug:
        return _answer_of(error_responses.failed(bug, path))


async def _read_for_known_callers(request: ASGIRequest, receive: IncomingBody) -> Principal:
    """Read the body once the caller is known: nobody else may fill our memory.

    What is refused before its body was read is refused with the connection.
    """
    principal: Principal | None = None
    try:
        principal = await auth.bearer(request)
        owner = fast_path.owner_of(principal)
        request._body = await bodies.read(receive, owner)  # noqa: SLF001  where Django keeps what it has read
    except DomainError as refused:
        if request.method not in BODILESS:
            refused.closes_connection = True
        if principal is not None:
            context.refused().is_of(principal.user_id, principal.api_key_id)
        raise
    return principal


async def _sender(scope: Scope) -> str:
    """Return who sends a long body on Django's way, which asks only once it has all of it.

    Raises:
        Unauthorized: Nobody we know.
        Unavailable: The database is away.
    """
    given = {name: value.decode("latin-1") for name, value in scope["headers"]}
    try:
        if not error_pages.covers(scope["path"]):
            await published.refresh()
            address = addresses.of_scope(scope)
            principal = await auth.authenticate(given.get(b"authorization"), address=address)
            return fast_path.owner_of(principal)
        cookies = parse_cookie(given.get(b"cookie", ""))
        user_id = await in_thread(_signed_in)(cookies.get(settings.SESSION_COOKIE_NAME))
    except (*database.AWAY, OperationalError) as away:
        raise Unavailable("The service is not available right now.", retry_after_s=1) from away
    if user_id is None:
        raise Unauthorized("Unauthorized")
    return user_id


def _signed_in(session_key: str | None) -> str | None:
    """Return whose session it is, if it is anybody's."""
    return SessionStore(session_key).get(SESSION_KEY) if session_key else None


def _answer_of(response: HttpResponseBase) -> OutgoingBody:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
    ]
    if isinstance(response, StreamingHttpResponse):
        return OutgoingBody(response.status_code, headers, partial(_write_each, response))
    return OutgoingBody(response.status_code, headers, cast("HttpResponse", response).content)


async def _send(answer: OutgoingBody, send: Send) -> None:
    body = answer.body
    if isinstance(body, bytes):
        answer.headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
    else:
        await _stream(body, send)


async def _stream(pour: Pour, send: Send) -> None:
    """Send part by part; a broken stream is left unfinished, so that the connection is cut."""

    async def write(part: bytes) -> None:
        await send({"type": "http.response.body", "body": part, "more_body": True})

    try:
        await pour(write)
    except StreamAborted:
        return
    await send({"type": "http.response.body", "body": b""})


async def _write_each(parts: AsyncIterable[bytes], write: Write) -> None:
    async for part in parts:
        await write(part)
