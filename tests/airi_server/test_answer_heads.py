"""The head of an answer: written at once, and to the byte what uvicorn would write."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from airi_server.web.exchanges import Exchange

pytestmark = pytest.mark.asyncio

LENGTH = (b"content-length", b"2")
TYPE = (b"content-type", b"application/json")
SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "root_path": "",
    "path": "/",
    "query_string": b"",
    "client": ("127.0.0.1", 1),
}
QUIET = logging.getLogger("tests.quiet")
QUIET.setLevel(logging.WARNING)


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.is_closed = True


def exchange_of(kind: type[RequestResponseCycle], *, keep_alive: bool, method: str) -> Any:
    transport = cast("Any", Written())
    return kind(
        scope=cast("Any", SCOPE | {"method": method}),
        transport=transport,
        flow=FlowControl(transport),
        logger=logging.getLogger("test"),
        access_logger=QUIET,
        access_log=True,  # as Django's set-up of the loggers leaves it
        default_headers=[(b"date", b"Tue, 01 Dec 2026 00:00:00 GMT")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )


async def written(kind, headers, *, status=200, keep_alive=True, method="POST", body=b"{}"):
    """Return everything that is on the wire, whether the connection ends, or the refusal."""
    exchange = exchange_of(kind, keep_alive=keep_alive, method=method)
    try:
        await exchange.send(
            {"type": "http.response.start", "status": status, "headers": [*headers]}
        )
        await exchange.send({"type": "http.response.body", "body": body})
    except RuntimeError as refused:
        return exchange.transport.data, str(refused)
    return exchange.transport.data, exchange.transport.is_closed


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [LENGTH, TYPE]),
        (200, [TYPE]),
        (200, []),
        (402, [TYPE, LENGTH, (b"vary", b"Origin"), (b"vary", b"Accept")]),
        (200, [(b"Content-Length", b"2"), (b"X-Odd", b"a")]),
        (200, [LENGTH, (b"connection", b"close")]),
        (200, [LENGTH, (b"Connection", b"Close")]),
        (200, [TYPE, (b"transfer-encoding", b"chunked")]),
        (204, [TYPE]),
        (304, [TYPE]),
        (200, [LENGTH, (b"x-a", b"one\r\nx-b: two")]),
        (200, [LENGTH, (b"x-a\r\nx-b", b"two")]),
        (200, [LENGTH, (b"x a", b"two")]),
        (200, [LENGTH, (b"x-a", b"tab\there, and \xe9")]),
        (200, [(b"content-length", b"3"), TYPE]),
    ],
)
async def test_it_is_what_uvicorn_writes(status, headers, keep_alive, method):
    body = b"" if status in (204, 304) else b"{}"
    asked = {"status": status, "keep_alive": keep_alive, "method": method, "body": body}
    theirs = await written(RequestResponseCycle, headers, **asked)
    ours = await written(Exchange, headers, **asked)
    assert ours == theirs


async def test_an_ordinary_head_is_not_left_to_uvicorn(monkeypatch):
    async def send(*_):
        raise AssertionError

    monkeypatch.setattr(RequestResponseCycle, "send", send)
    exchange = exchange_of(Exchange, keep_alive=True, method="POST")
    await exchange.send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})

    assert exchange.transport.data.endswith(b"\r\ncontent-length: 2\r\n\r\n")
