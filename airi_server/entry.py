"""The lean entry: API requests reach their view without a thread, a task or middleware.

Django's own handler makes a thread-sensitive executor and two tasks for each request, and every
synchronous middleware costs a thread hop; together more than everything else this server does.
So for the paths of the hot path this entry reads the body, refreshes what operators published,
resolves the URL, awaits the view and sends what it returns. All other paths take Django's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import Resolver404

from accounts import auth
from airi_server import refusal_responses
from airi_server.kernel import database
from airi_server.kernel.client import ClientConnection
from airi_server.kernel.errors import DomainError, InvalidRequest
from airi_server.runtime import published
from llmrouter.completions.relay import StreamAborted

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GATEWAY: Final = ("/v1/", "/api/v1/openai/")
HOT: Final = (*GATEWAY, "/api/v1/flux")
APP: Final = "/app/"
PAGES: Final = (f"/{settings.ADMIN_PATH}/", "/static/", APP)
METHOD_NOT_ALLOWED: Final = 405
DJANGOS_REFUSALS: Final = (403, METHOD_NOT_ALLOWED)
BODILESS: Final = ("GET", "HEAD", "OPTIONS", "DELETE")
BODY_TIMEOUT_S: Final = 30.0
SEND_TIMEOUT_S: Final = 60.0
"""A client that takes nothing for so long is gone."""


class BodyTooLarge(DomainError):
    """The body is longer than this surface takes. It was not read to its end."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class BodyTooSlow(DomainError):
    """The body did not arrive in time."""

    code = "REQUEST_TIMEOUT"
    status = 408


class ClientLeft(RequestAborted):
    """The client hung up before its request was complete."""


class LeanASGIHandler(ASGIHandler):
    """Django's ASGI handler with a short way for the hot path."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if not scope["path"].startswith(HOT):
            await super().__call__(scope, receive, cast("Any", send))
            return
        with contextlib.suppress(ClientLeft):
            await _send(await self._respond(scope, receive), send)

    async def _respond(self, scope: Scope, receive: Receive) -> HttpResponseBase:
        path = scope["path"]
        try:
            request = ASGIRequest(scope, io.BytesIO())
            request.client = ClientConnection(receive)  # type: ignore[attr-defined]
            await published.refresh()
            await _read_for_known_callers(request, receive)
            return await self._routed(request)
        except ClientLeft:
            raise
        except database.AWAY:
            return refusal_responses.database_away(path)
        except DomainError as refused:
            return refusal_responses.of(refused, path)
        except UnicodeDecodeError:
            return refusal_responses.of(InvalidRequest("The request is not UTF-8."), path)
        except Exception as bug:
            return refusal_responses.unexpected(bug, path)

    async def _routed(self, request: ASGIRequest) -> HttpResponseBase:
        """Await the view; whoever we know is told which path or method is not routed."""
        with contextlib.suppress(Resolver404):
            match = self.resolve_request(request)
            view = cast("Callable[..., Awaitable[HttpResponseBase]]", match.func)
            response = await view(request, *match.args, **match.kwargs)
            if response.status_code != METHOD_NOT_ALLOWED:
                return response
        await auth.bearer(request)
        return refusal_responses.not_found(request)

    async def read_body(self, receive: Any) -> io.BytesIO:
        """Read a body on Django's way, within the same bounds; it is small, so it stays here."""
        return io.BytesIO(await _read_body(receive))

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Take Django's way; outside of the pages its own refusals become ours.

        A method without a view, or its protection of forms: there is nothing to be found.
        """
        response = await super().get_response_async(request)
        is_ours = response.headers.get("Content-Type") == "application/json"
        if is_ours or response.status_code not in DJANGOS_REFUSALS:
            return response
        is_page = request.path.startswith(PAGES)
        return response if is_page else refusal_responses.not_found(request)


async def _read_for_known_callers(request: ASGIRequest, receive: Receive) -> None:
    """Read the body once the caller is known: nobody else may fill our memory.

    What is refused before its body was read is refused with the connection.
    """
    try:
        await auth.bearer(request)
        request._body = await _read_body(receive)  # noqa: SLF001  where Django keeps what it has read
    except DomainError as refused:
        if request.method not in BODILESS:
            refused.closes_connection = True
        raise


def body_limit(path: str) -> int:
    """Return how many bytes a request to `path` may have."""
    if path.startswith(GATEWAY):
        return settings.MAX_GATEWAY_BODY_BYTES
    return settings.MAX_BODY_BYTES


def refuse_declared_length(scope: Scope, limit: int) -> None:
    """Refuse a body that says it is too long, before any of it is read.

    Raises:
        BodyTooLarge: Its `Content-Length` is above `limit`.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise BodyTooLarge(f"The body may have at most {limit} bytes.")


async def _read_body(receive: Receive) -> bytes:
    """Read the whole body; the edge's `receive` bounds its size.

    Raises:
        BodyTooLarge, BodyTooSlow: It is not for us to read to the end.
        ClientLeft: It never came.
    """
    parts = []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError as late:
        raise BodyTooSlow("The body did not arrive in time.") from late


async def _send(response: HttpResponseBase, send: Send) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
    ]
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    if isinstance(response, StreamingHttpResponse):
        await send(start)
        await _stream(response, send)
    else:
        content = cast("HttpResponse", response).content
        headers.append((b"content-length", b"%d" % len(content)))
        await send(start)
        await send({"type": "http.response.body", "body": content})


async def _stream(response: StreamingHttpResponse, send: Send) -> None:
    """Send part by part; a broken stream is left unfinished, so that the connection is cut."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as timer:
            async for part in response:
                timer.reschedule(loop.time() + SEND_TIMEOUT_S)
                await send({"type": "http.response.body", "body": part, "more_body": True})
                timer.reschedule(None)
    except (StreamAborted, TimeoutError):
        return
    await send({"type": "http.response.body", "body": b""})
