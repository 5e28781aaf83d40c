"""One corpus of bad input on every endpoint: never a 5xx, always an error a program can read."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_asyncio

from airi_server.web import middleware
from tests.airi_server.endpoints import ALWAYS, EXAMPLES, endpoints
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, stream

DEEP = 100_000
BODIES = {
    "empty": b"",
    "half": b"{",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "text": b'"x"',
    "empty object": b"{}",
    "nan": b'{"name":NaN,"model":NaN,"n":NaN}',
    "infinity": b'{"requestsPerMinute":Infinity,"n":-Infinity}',
    "beyond a double": b'{"requestsPerMinute":1e400,"n":1e400,"x":1e400}',
    "long number": b'{"requestsPerMinute":' + b"9" * 5_000 + b',"n":' + b"9" * 5_000 + b"}",
    "not utf-8": b"\xff\xfe\x00",
    "not utf-8 inside": b'{"name":"\xff","model":"\xff"}',
    "utf-16": '{"name":"x"}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"name":"x"}',
    "half a surrogate pair": rb'{"name":"\ud800","model":"\ud800","messages":["\udfff"]}',
    "nul": rb'{"name":"a\u0000b","model":"a\u0000b","messages":"\u0000"}',
    "deep list": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep field": b'{"name":"x","model":"auto","messages":' + b"[" * 900 + b"]" * 900 + b"}",
    "deep unclosed": b"[" * 500_000,
    "gzip": gzip.compress(b'{"name":"x"}'),
    "form": b"name=x&model=auto",
    "html": b"<html></html>",
    "proto": b'{"__proto__":{"a":1},"constructor":1,"__class__":"x","name":"x"}',
    "duplicates": b'{"model":"auto","model":"x","name":"a","name":"b","messages":[]}',
}
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**53 + 1, 2**63, 2**64, 1e308, -0.0, "", " ", "\0",
    "NaN",
    "x" * 10_000, "💥" * 300, "2026-02-30T00:00:00Z", "9999-12-31T23:59:59.999-23:59", "%s%n{0}",
    "' OR 1=1 --", [], {}, [None], [[]], [True], ["\0"], {"": None}, {"day": True}, {"day": 2**63},
]  # fmt: skip
QUERIES = [
    "", "abc", "-1", "%00", "%ff%fe", "%", "1e400", "9" * 400, "NaN", "true", "1.5", "%F0%9F%92%A5",
    "' OR 1=1 --", "1&{name}=2", "&=&&=;", "00000000-0000-7000-8000-00000000000%00", "-" * 36,
    "%D9%A1", "x" * 5_000,
]  # fmt: skip
PARAMETERS = [
    "x", "%00", "%ff", "..%2f..", "x" * 300, "%F0%9F%92%A5", "0" * 36, "-" * 36, "a%20b", "%0d%0a",
    "00000000-0000-7000-8000-000000000000", "' OR 1=1", "%25%73",
]  # fmt: skip
HEADERS = [
    {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
    {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer " + "x" * 9_000},
    {"Authorization": "Bearer sk-airi-' OR 1=1"}, {"Authorization": "Bearer a.b.c"},
    {"Authorization": "Bearer \xff\xfe"}, {"Authorization": "Bearer sk-airi-%00"},
    {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"},
    {"Content-Type": "application/json; charset=utf-99"}, {"Content-Type": "\xff"},
    {"Content-Encoding": "gzip"}, {"Accept": "text/html"}, {"Accept": "\xff"},
    {"Cookie": "a=\xff;;=;"},
    {"Cookie": "sessionid=" + "x" * 4_000}, {"Host": "a b"}, {"Host": "\xff"}, {"Host": "[::1"},
    {"Origin": "http://["}, {"Origin": "null"}, {"Origin": "\xff"}, {"Origin": "https://a@b:99999"},
    {"traceparent": "00-zz"}, {"traceparent": "\xff" * 60}, {"tracestate": "=,=,"},
    {"baggage": "%ff"}, {"X-Forwarded-For": "\xff, , 999.1.1.1, [::1]:x"},
    {"Idempotency-Key": "\xff"},
    {"Idempotency-Key": "x" * 300}, {"Range": "bytes=9-1"}, {"If-None-Match": '"'},
    {"If-Modified-Since": "yesterday"}, {"X-HTTP-Method-Override": "DELETE"},
    {"X-Request-Id": "\xff"},
    {"Expect": "200-ok"}, {"Accept-Language": "\xff" * 300},
]  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
POLICY = b"content-security-policy"
TAKES_BODY = [name for name in EXAMPLES if EXAMPLES[name].body]
KINDS = {
    (name.split()[0], *example.path.split("/")[1:4]): name for name, example in EXAMPLES.items()
}.values()
"""An endpoint for each method of each room: what no view looks at is sent to these."""


def test_every_endpoint_has_an_example():
    assert set(endpoints()) == set(EXAMPLES)


@pytest_asyncio.fixture
async def caller(served, upstream):
    upstream.script(obliging)
    await gateway.route(upstream.base_url)
    return await gateway.caller(flux=1_000_000)


async def obliging(request):
    step = stream() if (await request.json()).get("stream") else answer()
    return await step(request)


class Talk:
    """Sends byte for byte what a test says, over one connection that is opened again as needed."""

    def __init__(self, served, key):
        host, port = served.base_url.removeprefix("http://").split(":")
        self.place = (host, int(port))
        self.key = key
        self.streams = None

    async def __call__(self, method, path, body=None, headers=None):
        """Return (status, headers in lower case, body)."""
        given = {"Host": "x", "Authorization": f"Bearer {self.key}"}
        if body is not None:
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items()), "", ""]
        message = "\r\n".join(lines).encode("latin-1") + (body or b"")
        async with asyncio.timeout(10):
            if self.streams is None or self.streams[1].is_closing():
                self.streams = await asyncio.open_connection(*self.place)
            reader, writer = self.streams
            writer.write(message)
            return await self._answer(reader, method)

    async def _answer(self, reader, method):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
        body = b""
        if "chunked" in headers.get("transfer-encoding", ""):
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        elif method != "HEAD":
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), headers, body

    def close(self):
        if self.streams:
            self.streams[1].close()
        self.streams = None


@pytest_asyncio.fixture
async def talk(served, caller):
    made = Talk(served, caller.key)
    yield made
    made.close()


def is_well(answered, what):
    """Assert that an answer is no 5xx, and that an error is one a program can read."""
    status, headers, body = answered
    assert status < 500, (what, answered)
    always = dict(ALWAYS)
    if status == 200 and headers["content-type"].startswith("text/html"):  # `/` and `/docs`
        always["content-security-policy"] = dict([middleware.FRONT_POLICY])[POLICY].decode()
    for name, value in always.items():
        assert headers.get(name) == value, (what, name, answered)
    assert "x-request-id" in headers, (what, answered)
    assert "set-cookie" not in headers
    if status >= 400:
        assert headers["content-type"] == "application/json", (what, answered)
        told = orjson.loads(body)
        error = told["error"]
        code = error["code"] if isinstance(error, dict) else error
        assert isinstance(code, str), (what, answered)
        assert code, (what, answered)
        assert told["message"], (what, answered)


def place(name, parameter="x"):
    """Return the method and the path of an endpoint, its parameter filled in."""
    return name.split()[0], EXAMPLES[name].path.replace("{x}", parameter)


@pytest.mark.asyncio
@pytest.mark.usefixtures("pooled")
class TestEveryEndpoint:
    async def test_of_bad_bodies(self, talk, upstream):
        for name in EXAMPLES:
            method, path = place(name)
            for kind, body in BODIES.items():
                if method != "GET" or kind in ("empty", "half", "deep list"):
                    is_well(await talk(method, path, body), (name, kind))
        for seen in upstream.seen:
            assert seen.body["model"] == "upstream-model"

    async def test_of_wrong_values_in_every_field(self, talk):
        for name in TAKES_BODY:
            method, path = place(name)
            ordinary = EXAMPLES[name].body or {}
            # Every other value a field: all of them reach every endpoint that has two fields.
            for index, field in enumerate([*ordinary, "unknown"]):
                for value in VALUES[index % 2 :: 2]:
                    body = json.dumps({**ordinary, field: value}).encode()
                    is_well(await talk(method, path, body), (name, field, str(value)[:40]))

    async def test_of_bad_paths_and_queries(self, talk):
        for name, example in EXAMPLES.items():
            method, _ = place(name)
            body = orjson.dumps(example.body) if example.body else None
            for parameter in PARAMETERS if "{x}" in example.path else ():
                path = quote(place(name, parameter)[1], safe="%/'=")
                is_well(await talk(method, path, body), (name, parameter))
            for key in (*example.query, *(("x",) if name in KINDS else ())):
                for value in QUERIES:
                    query = quote(f"{key}={value.replace('{name}', key)}", safe="%&=;'")
                    is_well(await talk(method, f"{place(name)[1]}?{query}", body), (name, query))

    async def test_of_odd_headers(self, talk):
        for turn, name in enumerate(KINDS):
            example = EXAMPLES[name]
            method, path = place(name)
            body = orjson.dumps(example.body) if example.body else None
            # Every other header: what reads them (the edge, the ways to authenticate, the parser)
            # serves many of these, and of two neighbors one is sent each.
            for headers in HEADERS[turn % 2 :: 2]:
                is_well(await talk(method, path, body, headers), (name, headers))

    async def test_of_methods_that_are_not_routed(self, talk):
        routed = {place(name) for name in EXAMPLES}
        name_of = {place(name)[1]: example.path for name, example in EXAMPLES.items()}
        for path in {path for _, path in routed}:
            for method in METHODS:
                if (method, path) not in routed:
                    answered = await talk(method, path, b"{}")
                    is_well(answered, (method, path))
                    if path != "/api/openapi.json":  # ninja's, for any method that is safe
                        status = 405 if path.startswith("/v1/") else 404  # contract §1.3
                        assert answered[0] == status, (method, path, answered)
                        if "{x}" not in name_of[path]:
                            there = {m for m, routed_path in routed if routed_path == path}
                            allowed = set(answered[1]["allow"].split(", "))
                            assert allowed - {"HEAD"} == there, (method, path, answered)

    async def test_of_bodies_above_the_cap(self, served, talk):
        """Case 156: 413, declared or chunked, before it is read to its end."""
        two_mebibytes = b" " * (2 * 2**20)
        for name in EXAMPLES:
            method, path = place(name)
            if method == "GET" or path.startswith(("/v1/", "/api/v1/openai")):
                continue
            answered = await talk(method, path, two_mebibytes)
            assert answered[0] == 413, (name, answered)
            is_well(answered, name)
            talk.close()
            chunked = await served.send(method, path, key=talk.key, data=pieces(two_mebibytes))
            assert (chunked.status, chunked.json()["error"]) == (413, "PAYLOAD_TOO_LARGE"), name
            assert chunked.headers["x-content-type-options"] == "nosniff"


async def pieces(body):
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


@pytest.mark.asyncio
class TestGatewayBodies:
    async def test_of_33_mebibytes_are_refused_unread_and_32_are_taken(
        self, served, upstream, caller
    ):
        path = "/v1/chat/completions"
        large = b'{"messages":"' + b"x" * (33 * 2**20) + b'"}'
        for data in (io.BytesIO(large), pieces(large)):
            response = await served.send("POST", path, key=caller.key, data=data)
            assert response.status == 413
            assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
        assert upstream.seen == []
        upstream.script(answer(completion()))

        picture = "data:image/png;base64," + "A" * (20 * 2**20)
        part = {"type": "image_url", "image_url": {"url": picture}}
        messages = [{"role": "user", "content": [part]}]
        body = io.BytesIO(orjson.dumps({"messages": messages}))
        response = await served.send("POST", path, key=caller.key, data=body)

        assert response.status == 200
        assert upstream.seen[0].body["messages"] == messages
