"""The HTTP client of everything off the hot path: httpx, with the bounds that all of it has.

No proxy of the environment is used, no redirect is followed and no cookie is kept; an exchange has
a deadline and a body a largest size. Certificates are the system's, as on the hot path.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

DEADLINE_S: Final = 15.0
CONNECT_S: Final = 5.0
ERROR_S: Final = 2.0
"""How long the body of an answer that is no success may take: it only says why."""
MAX_BYTES: Final = 1_048_576
TIMEOUT, CONNECT, MALFORMED, TOO_LONG = "timeout", "connect", "malformed", "too_long"
REFUSED, UNKNOWN_HOST, TLS, DISCONNECTED = "refused", "unknown_host", "tls", "disconnected"
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32


class NoResponse(Exception):
    """There is no answer; `reason` is one of the words above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OutgoingAnswer:
    """What came. `cut` says why the body is not whole, in one of the words above."""

    status: int
    headers: httpx.Headers
    body: bytes
    cut: str = ""


def read_url(url: str) -> str:
    """Return a URL as this client understands it, for those who check where it leads.

    Raises:
        ValueError: It understands nothing.
    """
    try:
        return str(httpx.URL(url))
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None


def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    within_s: float = DEADLINE_S,
    at_most: int = MAX_BYTES,
) -> OutgoingAnswer:
    """Send one request and read its answer, whatever its status. It blocks: call it in a thread.

    Raises:
        NoResponse: No connection, or no headers in time.
        ValueError: A header is not one line of printable characters.
    """
    given = {"accept-encoding": "identity", "user-agent": "airi-server", **(headers or {})}
    if not all(value.isascii() and value.isprintable() for value in given.values()):
        raise ValueError("A header is one line of printable characters.")
    request = httpx.Request(method, url, headers=given, content=body)
    # Not `asyncio.run`: it waits for its threads, and one that looks up a name has no deadline.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_ask(request, within_s, at_most))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ask(request: httpx.Request, within_s: float, at_most: int) -> OutgoingAnswer:
    by = asyncio.get_running_loop().time() + within_s
    async with _client() as client:
        try:
            # httpx bounds each read; a server that drips would outlast any number of them.
            async with asyncio.timeout_at(by):
                response = await client.send(request, stream=True)
        except (TimeoutError, httpx.HTTPError) as error:
            raise NoResponse(_reason(error)) from error
        if not response.is_success:
            by = min(by, asyncio.get_running_loop().time() + ERROR_S)
        try:
            body, cut = await _read(response, by, at_most)
        finally:
            await response.aclose()
    return OutgoingAnswer(response.status_code, response.headers, body, cut)


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        verify=_tls(),
        timeout=httpx.Timeout(None, connect=CONNECT_S),
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _read(response: httpx.Response, by: float, at_most: int) -> tuple[bytes, str]:
    """Return the body as far as it came, and why it is not whole."""
    body, cut = bytearray(), ""
    try:
        async with asyncio.timeout_at(by):
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > at_most:
                    cut = TOO_LONG
                    break
    except (TimeoutError, httpx.HTTPError) as error:
        cut = _reason(error)
    if response.headers.get("content-encoding", "identity").strip().lower() == "identity":
        return bytes(body[:at_most]), cut
    return _unpacked(bytes(body), at_most, cut)


def _unpacked(packed: bytes, at_most: int, cut: str) -> tuple[bytes, str]:
    """Undo a content coding that was not asked for, no further than what may be held."""
    unpacking = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        body = unpacking.decompress(packed, at_most)
    except zlib.error:
        return b"", MALFORMED
    if not unpacking.eof:
        cut = cut or (TOO_LONG if unpacking.unconsumed_tail else MALFORMED)
    return body, cut


def _reason(error: Exception) -> str:
    match error:
        case httpx.ConnectError():
            return next((word for each in _causes(error) if (word := _word(each))), CONNECT)
        case httpx.ConnectTimeout() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return CONNECT
        case TimeoutError() | httpx.TimeoutException():
            return TIMEOUT
        case httpx.RemoteProtocolError() if not str(error).startswith(("Server disc", "peer clos")):
            return MALFORMED
    return DISCONNECTED


def _word(error: BaseException) -> str:
    match error:
        case ssl.SSLError():
            return TLS
        case socket.gaierror():
            return UNKNOWN_HOST
        case ConnectionRefusedError():
            return REFUSED
        case ConnectionResetError():
            return DISCONNECTED
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield what led to an error, nearest first; of several addresses, what each of them led to."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__ or error.__context__
