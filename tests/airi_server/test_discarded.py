"""Answers that come before the body: they reach clients that send all of it before they look."""

from __future__ import annotations

import asyncio
import http.client
import json
from urllib.parse import urlsplit

import pytest
import uvloop

from airi_server.kernel.threads import in_thread
from airi_server.web import http_protocols
from tests.airi_server.lines import line_to, request
from tests.factories import gateway

pytestmark = pytest.mark.asyncio
GATEWAY, KEYS = "/v1/chat/completions", "/api/v1/keys"
MIB = 2**20
ONE_READ = 262_144
"""What may be on its way through the loop when enough has been read."""


async def test_time_that_is_up_in_the_middle_of_a_burst_is_no_error():
    """Uvloop's timer of less than half a millisecond is one that cannot say when it rings."""
    closed: list[bool] = []

    await asyncio.to_thread(uvloop.run, burst(closed))

    assert closed == [True]


async def burst(closed):
    loop = asyncio.get_running_loop()
    protocol = http_protocols.HttpProtocol.__new__(http_protocols.HttpProtocol)
    protocol.loop, protocol._is_deaf, protocol._left = loop, True, MIB
    protocol._discard_until = loop.time() - 1
    protocol._close = lambda: closed.append(True)  # type: ignore[method-assign]

    for _ in range(3):
        protocol.data_received(b"x" * 1_000)
    await asyncio.sleep(0.01)


def post(base_url, path, key, size, *, chunked=False):
    """Send a body with the standard library, which reads nothing before all of it has left."""
    place = urlsplit(base_url)
    client = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = b'{"name":"' + b"x" * (size - 11) + b'"}'
    try:
        if chunked:
            pieces = (body[start : start + 65_536] for start in range(0, size, 65_536))
            client.request("POST", path, pieces, headers, encode_chunked=True)
        else:
            client.request("POST", path, body, headers)
        answered = client.getresponse()
        return answered.status, json.loads(answered.read())
    finally:
        client.close()


def code_of(body):
    return body["error"]["code"] if isinstance(body["error"], dict) else body["error"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [GATEWAY, KEYS, "/v1/nothing", "/api/v1/flux"])
@pytest.mark.parametrize("size", [50_000, 900_000, 34_000_000])
async def test_unknown_callers_are_told(served, path, chunked, size):
    for key in ("nobody", "sk-airi-" + "a" * 52):
        status, body = await in_thread(post)(served.base_url, path, key, size, chunked=chunked)

        told = (status, code_of(body))
        assert told == (401, "UNAUTHORIZED") or (size > MIB and told == (413, "PAYLOAD_TOO_LARGE"))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("path", "limit"), [(GATEWAY, 6 * MIB), (KEYS, MIB)])
async def test_known_callers_are_told_that_it_was_too_much(served, settings, path, limit, chunked):
    settings.MAX_GATEWAY_BODY_BYTES = 6 * MIB
    caller = await gateway.caller()
    for size in (limit + 1, limit + MIB, 3 * 6 * MIB):
        status, body = await in_thread(post)(
            served.base_url, path, caller.key, size, chunked=chunked
        )

        assert (status, code_of(body)) == (413, "PAYLOAD_TOO_LARGE")


@pytest.fixture
def read(monkeypatch):
    """Return the sizes of everything that the server reads."""
    sizes = []
    received = http_protocols.HttpProtocol.data_received

    def data_received(self, data):
        sizes.append(len(data))
        received(self, data)

    monkeypatch.setattr(http_protocols.HttpProtocol, "data_received", data_received)
    return sizes


async def pour(line, megabytes):
    for _ in range(megabytes):
        await line.send(b"x" * MIB)


@pytest.mark.parametrize(
    "framing", [f"Content-Length: {30 * MIB}", "Transfer-Encoding: chunked"], ids=str
)
@pytest.mark.parametrize("path", [GATEWAY, KEYS, "/admin/login/", "/nothing"])
async def test_four_times_what_is_taken_is_read_and_no_more(served, settings, read, path, framing):
    settings.MAX_GATEWAY_BODY_BYTES = MIB
    head = request("POST", path, "Authorization: Bearer nobody", framing)
    if "chunked" in framing:
        head += b"%x\r\n" % (30 * MIB)
    async with line_to(served.base_url) as line:
        await line.send(head)
        pouring = asyncio.create_task(pour(line, 30))
        answered = await line.answer()
        await pouring
        await line.end()

    assert answered is not None
    assert answered.status in (401, 413)
    assert answered.headers["connection"] == "close"
    # What was kept for a short body comes before it.
    assert sum(read) <= 4 * MIB + 65_536 + 3 * ONE_READ


async def test_it_is_read_for_a_moment_and_no_longer(served, monkeypatch):
    monkeypatch.setattr(http_protocols, "DISCARD_BODY_S", 0.2)
    head = request("POST", GATEWAY, "Authorization: Bearer nobody", "Content-Length: 99999")
    async with line_to(served.base_url) as line:
        await line.send(head)
        assert await line.answer() is not None
        assert await line.end() == b""
        # Nothing more comes, and for a moment nothing that is sent is refused.
        async with asyncio.timeout(3):
            while not line.writer.transport.is_closing():
                await line.send(b"x")
                await asyncio.sleep(0.01)


async def test_a_body_that_pauses_is_waited_for_no_more(served, monkeypatch):
    monkeypatch.setattr(http_protocols, "DISCARD_PAUSE_S", 0.1)
    head = request("POST", GATEWAY, "Authorization: Bearer nobody", "Content-Length: 99999")
    async with line_to(served.base_url) as line:
        await line.send(head)
        assert await line.answer() is not None
        for _ in range(5):  # for longer than a pause may be
            await line.send(b"x")
            await asyncio.sleep(0.05)
            assert not line.writer.transport.is_closing()
        assert await line.end() == b""
        async with asyncio.timeout(3):
            while not line.writer.transport.is_closing():
                await asyncio.sleep(0.15)
                await line.send(b"x")


async def test_what_follows_it_is_not_read_as_a_request(served, caplog):
    """The connection ends with the refusal, whatever the bytes look like."""
    caplog.set_level("INFO", "airi_server.web.middleware")
    inner = request("GET", "/inner")
    head = request("POST", GATEWAY, "Authorization: Bearer nobody", f"Content-Length: {len(inner)}")
    async with line_to(served.base_url) as line:
        await line.send(head, inner, inner)
        found = await line.answers(["POST", "GET", "GET"])

    assert [each.status for each in found] == [401]
    assert "/inner" not in [vars(each).get("path") for each in caplog.records]
