"""A request for another host: 400 and one short line of the log, whichever way it takes."""

from __future__ import annotations

import logging

import aiohttp
import orjson
import pytest

from airi_server.logging import JSONFormatter
from airi_server.web import health, hosts
from tests.factories import gateway

NAME = "api.example.com"
COMPLETION = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
WAYS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/api/v1/openai/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/api/v1/flux"),
    ("GET", "/api/v1/keys"),
    ("GET", "/api/openapi.json"),
    ("GET", "/admin/"),
    ("GET", "/admin/login/"),
    ("GET", "/static/console/console.css"),
    ("GET", "/app/chat"),
    ("GET", "/"),
    ("GET", "/nothing"),
    ("OPTIONS", "/api/v1/flux"),
]
PAGES = ("/admin/", "/static/", "/app/")
WRONG = [
    "evil.example", "api.example.com.evil.example", "evil.example:443", "xapi.example.com",
    "127.0.0.1", "[::1]", "api.example.com@evil.example", "api.example.com, evil.example",
    "a b", "api.example.com/", "*", "",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _named(settings):
    settings.ALLOWED_HOSTS = [NAME]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [orjson.loads(JSONFormatter().format(each)) for each in caplog.records]


@pytest.mark.asyncio
class TestWrongHost:
    @pytest.mark.parametrize(("method", "path"), WAYS)
    async def test_is_400_in_the_shape_of_the_place_and_one_line(self, served, log, method, path):
        caller = await gateway.caller()
        headers = {"Host": "evil.example", "Origin": "http://localhost:5173"}

        answered = await served.send(method, path, key=caller.key, headers=headers, json=COMPLETION)

        assert answered.status == 400
        assert b"evil" not in answered.body
        if path.startswith(PAGES):
            assert answered.headers["content-type"].startswith("text/html")
            assert answered.headers["x-content-type-options"] == "nosniff"
            assert "content-security-policy" in answered.headers
            assert b"another host name" in answered.body
        elif path.startswith(("/v1/", "/api/v1/openai")):
            assert answered.json()["error"]["code"] == "INVALID_REQUEST"
        else:
            assert answered.json()["error"] == "INVALID_REQUEST"
        (line,) = log()
        assert (line["level"], line["message"]) == ("warning", "Wrong host")
        assert (line["host"], line["path"]) == ("evil.example", path)
        assert "exception" not in line

    @pytest.mark.parametrize(("method", "path"), [way for way in WAYS if "/static" not in way[1]])
    async def test_is_not_ours_by_any_other_name(self, served, log, method, path):
        caller = await gateway.caller()
        for host in (NAME, f"{NAME}:8443", NAME.upper(), f"{NAME}."):
            answered = await served.send(
                method, path, key=caller.key, headers={"Host": host}, json=COMPLETION
            )
            assert answered.status != 400 or b"host name" not in answered.body

        assert [line for line in log() if line["message"] == "Wrong host"] == []

    @pytest.mark.parametrize("host", WRONG)
    async def test_is_none_that_looks_alike(self, served, host):
        for path in ("/v1/models", "/api/v1/keys", "/admin/login/"):
            assert (await served.get(path, Host=host)).status == 400

    async def test_is_one_that_is_there_twice_or_not_at_all(self, served):
        for head in (f"Host: {NAME}\r\nHost: evil.example\r\n", ""):
            for path in ("/v1/models", "/api/v1/keys"):
                answered = await raw(served, f"GET {path} HTTP/1.0\r\n{head}\r\n".encode())
                assert b" 400 " in answered.split(b"\r\n")[0], answered

    async def test_is_short_in_the_log_and_cannot_break_its_line(self, served, log):
        await served.get("/api/v1/keys/" + "p" * 900, Host="x" * 900)
        await raw(served, b"GET /v1/models HTTP/1.1\r\nHost: evil\x9b\xe9\r\n\r\n")

        long, odd = log()
        assert (len(long["host"]), len(long["path"])) == (200, 200)
        assert odd["host"] == "evil?\xe9"

    async def test_is_named_with_its_request(self, served, caplog):
        seen = []

        class Ids(logging.Handler):
            def emit(self, record):
                seen.append(orjson.loads(JSONFormatter().format(record)).get("request_id"))

        handler = Ids()
        hosts.logger.addHandler(handler)
        try:
            answered = await served.get("/v1/models", Host="evil.example")
        finally:
            hosts.logger.removeHandler(handler)

        assert seen == [answered.headers["x-request-id"]]

    async def test_on_a_socket_is_403_and_one_line(self, served, log):
        for path in ("/ws/chat", "/ws/v2/chat"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await served.session.ws_connect(
                    served.base_url + path, headers={"Host": "evil.example"}
                )
            assert refused.value.status == 403

        assert [(line["level"], line["path"]) for line in log()] == [
            ("warning", "/ws/chat"),
            ("warning", "/ws/v2/chat"),
        ]


@pytest.mark.asyncio
class TestProbes:
    @pytest.mark.parametrize("host", ["10.4.0.17:8000", "evil.example", "a b", "", NAME])
    async def test_answer_under_any_name(self, served, log, host):
        for path in hosts.PROBES:
            assert (await served.get(path, Host=host)).status == 200

        # What readiness finds is another matter: a test before may have left Redis away.
        assert [line for line in log() if line["logger"] != health.__name__] == []


class TestDjangosOwnWay:
    """Django's client passes the edge by, as nothing of a deployment does."""

    def test_says_a_wrong_host_in_one_line(self, client, log):
        for path in ("/admin/login/", "/api/v1/keys", "/static/nothing.css"):
            assert client.get(path, HTTP_HOST="evil.example").status_code == 400

        assert {(line["level"], line["message"], line["host"]) for line in log()} == {
            ("warning", "Wrong host", "evil.example")
        }
        assert len(log()) == 3

    @pytest.mark.django_db
    def test_says_what_else_it_refuses_in_one_line(self, client, log, settings):
        settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 3

        answered = client.post("/admin/login/", dict.fromkeys("abcdefgh", "x"), HTTP_HOST=NAME)

        assert answered.status_code == 400
        (line,) = log()
        assert (line["message"], line["reason"]) == ("Malformed request", "TooManyFieldsSent")
        assert "exception" not in line

    def test_answers_probes_under_any_name(self, client):
        assert client.get("/livez", HTTP_HOST="evil.example").status_code == 200


async def raw(served, request: bytes) -> bytes:
    import asyncio

    host, port = served.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    finally:
        writer.close()
