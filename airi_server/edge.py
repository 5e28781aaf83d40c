"""What every HTTP exchange has, whoever answers it: an id, safe headers, CORS, one log line.

Plain ASGI around everything else, because the hot path passes no Django middleware.
"""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings

from airi_server import bodies, refusal_responses
from airi_server.bodies import Message, Receive, Scope
from airi_server.entry import APP, PAGES, Send
from airi_server.kernel import context
from airi_server.kernel.errors import DomainError
from airi_server.kernel.ids import uuid7

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
OURS: Final = frozenset(name for name, _ in ALWAYS) | {
    b"x-request-id",
    b"strict-transport-security",
}
EXACT_ORIGINS: Final = frozenset(
    {"capacitor://localhost", "ai.moeru.airi-pocket://links", "https://airi.moeru.ai"}
)
LOCAL_ORIGIN: Final = re.compile(r"https?://(localhost|127\.0\.0\.1)(:\d{1,5})?")
WORKERS_ORIGIN: Final = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)*\.kwaa\.workers\.dev")
METHODS: Final = b"GET,HEAD,PUT,POST,DELETE,PATCH"


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
        if exchange.is_preflight:
            await exchange.answer_preflight()
            return
        bounded = _Bounded(scope, receive)
        try:
            if not scope["path"].startswith(PAGES):
                bodies.refuse_declared_length(scope, bounded.limit)
            await self._application(scope, bounded, exchange.send)
        except DomainError as refused:
            await exchange.refuse(refused)
        finally:
            exchange.log()


class _Bounded:
    """`receive` that counts: a body without a declared length is cut off too."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.limit = bodies.limit(scope["path"])
        self._receive = receive
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self.limit:
            raise bodies.BodyTooLarge(f"The body may have at most {self.limit} bytes.")
        return message


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.request_id = str(uuid7())
        self.status = 0
        self.line = context.Line()
        self._send = send
        self._began = time.perf_counter()
        self._is_page = scope["path"].startswith(PAGES)
        self._is_api = scope["path"].startswith("/api/")
        self._origin = next((v for n, v in scope["headers"] if n == b"origin"), None)

    @property
    def is_preflight(self) -> bool:
        return self.scope["method"] == "OPTIONS" and self._is_api and self._origin is not None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(message["headers"])
        await self._send(message)

    def _headers(self, given: list[Header]) -> list[Header]:
        if self._is_page:
            policy = APP_POLICY if self.scope["path"].startswith(APP) else CONSOLE_POLICY
            return [*given, policy, (b"x-request-id", self.request_id.encode())]
        request_id = next((v for n, v in given if n == b"x-request-id"), self.request_id.encode())
        kept = [header for header in given if header[0].lower() not in OURS]
        kept += ALWAYS
        if settings.SECURE_HSTS_SECONDS:
            kept.append((b"strict-transport-security", _hsts()))
        kept.append((b"x-request-id", request_id))
        if self._is_api:
            kept += self._cors()
        return kept

    def _cors(self) -> list[Header]:
        found = [(b"access-control-allow-credentials", b"true"), (b"vary", b"Origin")]
        if self._origin is not None and is_trusted(self._origin.decode("latin-1")):
            found.append((b"access-control-allow-origin", self._origin))
        return found

    async def answer_preflight(self) -> None:
        asked = [v for n, v in self.scope["headers"] if n == b"access-control-request-headers"]
        headers = [(b"access-control-allow-methods", METHODS)]
        headers += [(b"access-control-allow-headers", value) for value in asked[:1]]
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, refused: DomainError) -> None:
        if self.status:
            return
        response = refusal_responses.of(refused, self.scope["path"])
        headers = [(n.lower().encode(), v.encode()) for n, v in response.items()]
        headers.append((b"content-length", b"%d" % len(response.content)))
        headers.append((b"connection", b"close"))
        await self.send(
            {"type": "http.response.start", "status": refused.status, "headers": headers}
        )
        await self._send({"type": "http.response.body", "body": response.content})

    def log(self) -> None:
        self.line.is_written = True
        if self.scope["path"] in ("/livez", "/readyz") or not logger.isEnabledFor(logging.INFO):
            return
        logger.info(
            "Request ended",
            extra={
                "method": self.scope["method"],
                "path": self.scope["path"],
                **self.line.facts,
                "status": self.status,
                "duration_ms": round((time.perf_counter() - self._began) * 1000, 1),
            },
        )


@lru_cache(maxsize=1)
def _hsts() -> bytes:
    return f"max-age={settings.SECURE_HSTS_SECONDS}; includeSubDomains; preload".encode()


def is_trusted(origin: str) -> bool:
    """Return whether a browser on `origin` may call us with credentials (contract §1.2)."""
    if origin in EXACT_ORIGINS or LOCAL_ORIGIN.fullmatch(origin):
        return True
    if WORKERS_ORIGIN.fullmatch(origin):
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}".lower() in settings.ADDITIONAL_TRUSTED_ORIGINS
