"""ASGI middleware around every HTTP exchange: id, host, headers, CORS, one log line.

Plain ASGI around everything else, because the hot path passes no Django middleware.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpResponse

from airi_server.kernel import context
from airi_server.kernel.errors import DomainError
from airi_server.kernel.ids import uuid7
from airi_server.kernel.settled import Settled
from airi_server.pages import error_pages
from airi_server.web import error_responses, hosts, refusal_records
from airi_server.web.bodies import IncomingBody, Message, Receive, Scope
from airi_server.web.handler import Send

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]
ALWAYS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store, no-cache, private, max-age=0"),
    (b"pragma", b"no-cache"),
    (b"expires", b"0"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
CONSOLE_POLICY: Final[Header] = (
    b"content-security-policy",
    # Alpine, which unfold is built with, evaluates the expressions in its attributes.
    (
        b"default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'"
    ),
)
APP_POLICY: Final[Header] = (
    b"content-security-policy",
    # Whatever people write is shown as text: the browser refuses to parse any as markup.
    (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'; trusted-types 'none'"
    ),
)
FRONT: Final = frozenset({"/", "/docs"})
"""Pages outside of the two consoles: a style sheet, and nothing that runs."""
FRONT_POLICY: Final[Header] = (
    b"content-security-policy",
    (
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; "
        b"base-uri 'none'; frame-ancestors 'none'"
    ),
)
ON_FRONT: Final = tuple(FRONT_POLICY if each[0] == FRONT_POLICY[0] else each for each in ALWAYS)
OURS: Final = frozenset(name for name, _ in ALWAYS) | {
    b"x-request-id",
    b"strict-transport-security",
}
EXACT_ORIGINS: Final = frozenset(
    {
        "capacitor://localhost",
        "ai.moeru.airi-pocket://links",
        "https://airi.moeru.ai",
        "https://accounts.airi.build",
        "https://server-dev.airi-server-auth.pages.dev",
    }
)
LOCAL_ORIGIN: Final = re.compile(r"https?://(localhost|127\.0\.0\.1)(:\d{1,5})?")
WORKERS_ORIGIN: Final = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)*\.kwaa\.workers\.dev")
METHODS: Final = b"GET,HEAD,PUT,POST,DELETE,PATCH"
KEYED: Final = "/v1/"
"""Where only a key in a header counts, never a cookie."""
COOKIED: Final = "/api/"
CROSS_ORIGIN: Final = (COOKIED, KEYED)
VARY: Final[Header] = (b"vary", b"Origin")
EXPOSED: Final[Header] = (
    b"access-control-expose-headers",
    (
        b"x-request-id, x-airi-flux-charged, x-airi-max-tokens, x-airi-dropped, retry-after, "
        b"ratelimit-limit, ratelimit-policy, ratelimit-remaining, ratelimit-reset"
    ),
)
"""What a page may read of an answer, beside what browsers always let it read."""


class Edge:
    """Wraps an ASGI application."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        context.request_id.set(exchange.request_id)
        context.line.set(exchange.line)
        incoming = IncomingBody(scope, receive)
        try:
            if refused := scope.get("refused") or exchange.refusal():
                await exchange.fail(refused)
            elif exchange.is_preflight:
                await exchange.answer_preflight()
            else:
                await self._application(scope, incoming, exchange.send)
        except Exception as bug:
            await exchange.fail(bug)
        finally:
            incoming.release()
            exchange.log()
        if exchange.line.refused is not None and exchange.status:
            await refusal_records.keep(scope, exchange.request_id, exchange.line.refused)


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        made = uuid7()
        self.request_id = str(made)
        self.status = 0
        self.is_told = False
        self.line = context.LogLine(made)
        self._send = send
        self._began = time.perf_counter()
        self._is_page = error_pages.covers(scope["path"])
        self._origin = next((v for n, v in scope["headers"] if n == b"origin"), None)
        # Programs that call `/v1` are no pages, and are told nothing about them.
        cross_origin = COOKIED if self._origin is None else CROSS_ORIGIN
        self._is_cross_origin = scope["path"].startswith(cross_origin)

    @property
    def is_preflight(self) -> bool:
        """Whether a browser asks before it sends; unless the connection has refused it already."""
        is_asked = self.scope["method"] == "OPTIONS" and self._origin is not None
        return is_asked and self._is_cross_origin and "refused" not in self.scope

    def refusal(self) -> DomainError | None:
        """Return why this request is not for us, which the log has been told by then."""
        wrong = hosts.refusal(self.scope)
        self.is_told = wrong is not None
        return wrong

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = self._headers(message["headers"])
            self.status = message["status"]
        await self._send(message)

    def _headers(self, given: list[Header]) -> list[Header]:
        if self._is_page:
            is_app = self.scope["path"].startswith(error_pages.APP)
            policy = APP_POLICY if is_app else CONSOLE_POLICY
            return [*given, policy, (b"x-request-id", self.request_id.encode())]
        request_id = next((v for n, v in given if n == b"x-request-id"), self.request_id.encode())
        kept = [header for header in given if header[0].lower() not in OURS]
        kept += ON_FRONT if self.scope["path"] in FRONT and _is_html(given) else ALWAYS
        kept += _hsts()
        kept.append((b"x-request-id", request_id))
        if self._is_cross_origin:
            kept += self._cors()
        return kept

    def _cors(self) -> list[Header]:
        """Return who may read this."""
        is_keyed = self.scope["path"].startswith(KEYED)
        exposed = [] if self.scope["method"] == "OPTIONS" else [EXPOSED]
        if is_keyed and settings.V1_CORS_ORIGINS == ["*"]:
            return [(b"access-control-allow-origin", b"*"), *exposed]
        found = [VARY]
        origin = (self._origin or b"").decode("latin-1")
        trusted = is_trusted(origin)
        if trusted or not is_keyed:
            found.append((b"access-control-allow-credentials", b"true"))
        if trusted or (is_keyed and _normalized(origin) in settings.V1_CORS_ORIGINS):
            found += [(b"access-control-allow-origin", self._origin or b""), *exposed]
        return found

    async def answer_preflight(self) -> None:
        self.is_told = True
        asked = [v for n, v in self.scope["headers"] if n == b"access-control-request-headers"]
        headers = [(b"access-control-allow-methods", METHODS)]
        headers += [(b"access-control-allow-headers", value) for value in asked[:1]]
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, bug: Exception) -> None:
        """Answer what has escaped the application: a refusal, or a bug. Log a bug.

        An answer that is under way is left unfinished, so that its connection is cut.
        """
        path = self.scope["path"]
        try:
            if isinstance(bug, DomainError):
                await self._answer(error_responses.of(bug, path))
            elif self.status:
                error_responses.log_crash(bug, path)
            else:
                await self._answer(error_responses.failed(bug, path))
        except Exception as another:
            # What cannot be answered either is answered by uvicorn; its reason is in the log.
            if isinstance(bug, DomainError):
                error_responses.log_crash(another, path)

    async def _answer(self, response: HttpResponse) -> None:
        if self.status:
            return
        headers = [(n.lower().encode(), v.encode()) for n, v in response.items()]
        headers.append((b"content-length", b"%d" % len(response.content)))
        headers.append((b"connection", b"close"))
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": response.content})

    def log(self) -> None:
        self.line.is_written = True
        level = logging.WARNING if self.status >= error_responses.SERVER_ERROR else logging.INFO
        if self.is_told or self.scope["path"] in hosts.PROBES or not logger.isEnabledFor(level):
            return
        logger.log(
            level,
            "Request ended",
            extra={
                "method": self.scope["method"],
                "path": self.scope["path"],
                **self.line.facts,
                "status": self.status,
                "duration_ms": round((time.perf_counter() - self._began) * 1000, 1),
            },
        )


def _is_html(headers: list[Header]) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"text/html") for n, v in headers)


def _make_hsts() -> tuple[Header, ...]:
    seconds = settings.SECURE_HSTS_SECONDS
    said = f"max-age={seconds}; includeSubDomains; preload".encode()
    return ((b"strict-transport-security", said),) if seconds else ()


_hsts: Final = Settled(_make_hsts)


def is_trusted(origin: str) -> bool:
    """Return whether a browser on `origin` may call us with credentials (contract §1.2)."""
    if origin in EXACT_ORIGINS or LOCAL_ORIGIN.fullmatch(origin):
        return True
    if WORKERS_ORIGIN.fullmatch(origin):
        return True
    return _normalized(origin) in settings.ADDITIONAL_TRUSTED_ORIGINS


def _normalized(origin: str) -> str | None:
    """Return an origin as the settings hold it."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc}".lower()
