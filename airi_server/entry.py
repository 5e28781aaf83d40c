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
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import Resolver404

from accounts import auth
from airi_server import bodies, fast_path, refusal_responses
from airi_server.bodies import ClientLeft, Message, Receive, Scope
from airi_server.kernel import database
from airi_server.kernel.errors import DomainError, InvalidRequest
from airi_server.runtime import published
from llmrouter.completions.relay import Pour, StreamAborted, Write

Send = Callable[[Message], Awaitable[None]]

HOT: Final = (*bodies.GATEWAY, "/api/v1/flux")
APP: Final = "/app/"
PAGES: Final = (f"/{settings.ADMIN_PATH}/", "/static/", APP)
METHOD_NOT_ALLOWED: Final = 405
DJANGOS_REFUSALS: Final = (403, METHOD_NOT_ALLOWED)
BODILESS: Final = ("GET", "HEAD", "OPTIONS", "DELETE")


@dataclass(frozen=True, slots=True)
class Answer:
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
        with contextlib.suppress(ClientLeft):
            await _send(await _answer(way, scope, receive), send)

    async def _view(self, scope: Scope, receive: Receive) -> Answer:
        """Await the view; whoever we know is told which path or method is not routed."""
        request = ASGIRequest(scope, io.BytesIO())
        await published.refresh()
        await _read_for_known_callers(request, receive)
        with contextlib.suppress(Resolver404):
            match = self.resolve_request(request)
            view = cast("Callable[..., Awaitable[HttpResponseBase]]", match.func)
            response = await view(request, *match.args, **match.kwargs)
            if response.status_code != METHOD_NOT_ALLOWED:
                return _answer_of(response)
        await auth.bearer(request)
        return _answer_of(refusal_responses.not_found(request))

    async def read_body(self, receive: Any) -> io.BytesIO:
        """Read a body on Django's way, within the same bounds; it is small, so it stays here."""
        return io.BytesIO(await bodies.read(receive))

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


async def _complete(scope: Scope, receive: Receive) -> Answer:
    return Answer(200, *await fast_path.complete(scope, receive))


async def _answer(
    way: Callable[[Scope, Receive], Awaitable[Answer]], scope: Scope, receive: Receive
) -> Answer:
    path = scope["path"]
    try:
        return await way(scope, receive)
    except ClientLeft:
        raise
    except database.AWAY:
        return _answer_of(refusal_responses.database_away(path))
    except DomainError as refused:
        return _answer_of(refusal_responses.of(refused, path))
    except UnicodeDecodeError:
        return _answer_of(refusal_responses.of(InvalidRequest("The request is not UTF-8."), path))
    except Exception as bug:
        return _answer_of(refusal_responses.unexpected(bug, path))


async def _read_for_known_callers(request: ASGIRequest, receive: Receive) -> None:
    """Read the body once the caller is known: nobody else may fill our memory.

    What is refused before its body was read is refused with the connection.
    """
    try:
        await auth.bearer(request)
        request._body = await bodies.read(receive)  # noqa: SLF001  where Django keeps what it has read
    except DomainError as refused:
        if request.method not in BODILESS:
            refused.closes_connection = True
        raise


def _answer_of(response: HttpResponseBase) -> Answer:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
    ]
    if isinstance(response, StreamingHttpResponse):
        return Answer(response.status_code, headers, partial(_write_each, response))
    return Answer(response.status_code, headers, cast("HttpResponse", response).content)


async def _send(answer: Answer, send: Send) -> None:
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
