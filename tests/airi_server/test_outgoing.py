"""Calls of ours off the hot path, to real servers that do what they may not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from typing import Any

import pytest

from airi_server.kernel import outgoing
from airi_server.kernel.outgoing import NoResponse, OutgoingAnswer
from tests.fakes import raw
from tests.fakes.raw import RawUpstream, response

pytestmark = pytest.mark.asyncio
DRIP = [b"x"] * 400


async def asked(url: str, **how: Any) -> OutgoingAnswer:
    return await asyncio.to_thread(outgoing.ask, "POST", url, body=b"{}", **how)


def failing(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_an_answer_comes_as_it_is():
    async with RawUpstream(raw.says(response(b"{}", "x-note: one", "set-cookie: a=b"))) as server:
        answer = await asked(server.base_url)
        await asked(server.base_url)

    assert (answer.status, answer.body, answer.cut) == (200, b"{}", "")
    assert answer.headers["x-note"] == "one"


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch):
    async with RawUpstream(raw.says(response(b"theirs"))) as proxy:
        async with RawUpstream(raw.says(response(b"ours"))) as server:
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.base_url)
            answer = await asked(server.base_url)

    assert answer.body == b"ours"
    assert proxy.connections == 0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status):
    async with RawUpstream(raw.says(response(b"{}"))) as elsewhere:
        moved = raw.says(failing(status, f"location: {elsewhere.base_url}"))
        async with RawUpstream(moved) as server:
            answer = await asked(server.base_url)

    assert answer.status == int(status[:3])
    assert elsewhere.connections == 0


async def test_a_name_that_is_looked_up_for_long_is_not_waited_for(monkeypatch):
    """What the system does with its resolver takes a thread, which nothing can end."""
    looked_up = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        looked_up.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    with pytest.raises(NoResponse) as failed:
        await asked("http://slow.example.com/", within_s=0.2)
    waited = time.monotonic() - began
    looked_up.set()

    assert failed.value.reason == outgoing.TIMEOUT
    assert waited < 5


async def test_a_slow_body_ends():
    drip = raw.says(response(b"", length=400), *DRIP, pause_s=0.05)
    async with RawUpstream(drip) as server:
        began = time.monotonic()
        answer = await asked(server.base_url, within_s=0.3)

    assert time.monotonic() - began < 5
    assert answer.cut == outgoing.TIMEOUT
    assert answer.body.startswith(b"x")


async def test_slow_headers_end():
    drip = raw.says(b"HTTP/1.1 200 OK\r\nx-slow: ", *DRIP, pause_s=0.05)
    async with RawUpstream(drip) as server:
        began = time.monotonic()
        with pytest.raises(NoResponse, match="timeout"):
            await asked(server.base_url, within_s=0.3)

    assert time.monotonic() - began < 5


async def test_the_body_of_an_error_is_waited_for_a_moment_only(monkeypatch):
    monkeypatch.setattr(outgoing, "ERROR_S", 0.2)
    stuck = b"HTTP/1.1 503 Away\r\ncontent-length: 9\r\n\r\nwhy"
    async with RawUpstream(raw.says(stuck, then="hang")) as server:
        began = time.monotonic()
        answer = await asked(server.base_url)

    assert time.monotonic() - began < 5
    assert (answer.status, answer.body, answer.cut) == (503, b"why", outgoing.TIMEOUT)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_long_body_is_cut(packed):
    long = b"y" * 5_000
    body = gzip.compress(long) if packed else long
    coding = ["content-encoding: gzip"] if packed else []
    async with RawUpstream(raw.says(response(body, *coding))) as server:
        whole = await asked(server.base_url)
        cut = await asked(server.base_url, at_most=1_000)

    assert (whole.body, whole.cut) == (long, "")
    assert (cut.body, cut.cut) == (long[:1_000], outgoing.TOO_LONG)


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (raw.says(then="close"), outgoing.DISCONNECTED),
        (raw.says(then="reset"), outgoing.DISCONNECTED),
        (raw.says(b"what?\r\n\r\n"), outgoing.MALFORMED),
        (raw.says(then="hang"), outgoing.TIMEOUT),
    ],
)
async def test_says_why_there_is_no_answer(play, reason):
    async with RawUpstream(play) as server:
        with pytest.raises(NoResponse) as none:
            await asked(server.base_url, within_s=1)

    assert none.value.reason == reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://host.invalid/", outgoing.UNKNOWN_HOST),
        ("http://localhost:1/", outgoing.REFUSED),
        ("gopher://127.0.0.1/", outgoing.CONNECT),
    ],
)
async def test_says_why_there_is_no_connection(url, reason):
    with pytest.raises(NoResponse) as none:
        await asked(url)

    assert none.value.reason == reason


async def test_a_body_that_breaks_off_is_not_whole():
    async with RawUpstream(raw.says(response(b"half", length=9), then="close")) as server:
        answer = await asked(server.base_url)

    assert (answer.body, answer.cut) == (b"half", outgoing.DISCONNECTED)


@pytest.mark.parametrize("value", ["two\r\nlines", "schlüssel"])
async def test_a_header_is_one_line(value):
    with pytest.raises(ValueError, match="one line"):
        await asked("http://127.0.0.1:1/", headers={"authorization": value})
