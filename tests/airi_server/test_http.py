"""What the server decides about bytes that others may read otherwise: the table of docs/http.md.

Each case is sent, and a request after it in a segment of its own. What is refused is refused with
the connection; what is taken is taken as the case says, and the next request is the next request.
"""

from __future__ import annotations

import asyncio
import logging

import orjson
import pytest

from airi_server.web import heads, http_protocols, middleware
from tests.airi_server.lines import INNER, chunked, line_to, request, told
from tests.factories import gateway
from tests.fakes.upstream import answer

pytestmark = pytest.mark.asyncio
FOLLOWING = request("GET", "/following")
POST = b"POST /asked HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /asked HTTP/1.1\r\nHost: x\r\n"
END = b"\r\n"


def line(text: bytes) -> bytes:
    """Return a request with this first line."""
    return text + b"\r\nHost: x\r\n\r\n"


def headed(text: bytes) -> bytes:
    """Return a request with these headers beside its Host."""
    return GET + text + b"\r\n\r\n"


def framed(headers: bytes, body: bytes = b"abc") -> bytes:
    return POST + headers + b"\r\n\r\n" + body


def in_chunks(body: bytes) -> bytes:
    return framed(b"Transfer-Encoding: chunked", body)


REFUSED = {
    # --- The first line ---
    "a URL of another host": line(b"GET http://evil.example/asked HTTP/1.1"),
    "a URL of another port": line(b"GET http://x:81/asked HTTP/1.1"),
    "a URL with user and password": line(b"GET http://a:b@x/asked HTTP/1.1"),
    "a URL without a host": line(b"GET http:///asked HTTP/1.1"),
    "a URL of another scheme": line(b"GET ftp://x/asked HTTP/1.1"),
    "a URL, and no Host to compare": b"GET http://x/asked HTTP/1.0\r\n\r\n",
    "an asterisk": line(b"OPTIONS * HTTP/1.1"),
    "an asterisk for GET": line(b"GET * HTTP/1.1"),
    "a host and a port": line(b"CONNECT x:443 HTTP/1.1"),
    "a host and a port for GET": line(b"GET x:443 HTTP/1.1"),
    "CONNECT with a path": line(b"CONNECT /asked HTTP/1.1"),
    "a fragment": line(b"GET /asked#inner HTTP/1.1"),
    "a fragment of a URL": line(b"GET http://x/asked#inner HTTP/1.1"),
    "a NUL in the target": line(b"GET /asked\x00 HTTP/1.1"),
    "bytes beyond ASCII in the target": line(b"GET /ask\xc3\xa9d HTTP/1.1"),
    "bytes beyond ASCII in the query": line(b"GET /asked?\xff HTTP/1.1"),
    "DEL in the target": line(b"GET /asked\x7f HTTP/1.1"),
    "a blank in the target": line(b"GET /asked inner HTTP/1.1"),
    "a tab for a blank": line(b"GET\t/asked\tHTTP/1.1"),
    "HTTP/0.9 without a version": b"GET /asked\r\n\r\n",
    "HTTP/0.9": line(b"GET /asked HTTP/0.9"),
    "HTTP/1.2": line(b"GET /asked HTTP/1.2"),
    "HTTP/2": line(b"GET /asked HTTP/2.0"),
    "HTTP/2 with its preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version with a zero": line(b"GET /asked HTTP/01.1"),
    "a method in lower case": line(b"get /asked HTTP/1.1"),
    "a method nobody knows": line(b"ASK /asked HTTP/1.1"),
    "a blank before the method": line(b" GET /asked HTTP/1.1"),
    "a NUL before the method": line(b"\x00GET /asked HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    # --- Headers ---
    "no Host": b"GET /asked HTTP/1.1\r\n\r\n",
    "two Hosts": headed(b"Host: y"),
    "the same Host twice": headed(b"Host: x"),
    "Authorization twice": headed(b"Authorization: Bearer a\r\nauthorization: Bearer b"),
    "Content-Type twice": headed(b"Content-Type: a/b\r\nContent-Type: a/b"),
    "Idempotency-Key twice": headed(b"Idempotency-Key: a\r\nIdempotency-Key: b"),
    "a folded header": headed(b"A: b\r\n c"),
    "a folded first header": b"GET /asked HTTP/1.1\r\n Host: x\r\n\r\n",
    "a blank before the colon": headed(b"A : b"),
    "a blank in a name": headed(b"A b: c"),
    "no name": headed(b": b"),
    "no colon": headed(b"A"),
    "a NUL in a name": headed(b"A\x00: b"),
    "a NUL in a value": headed(b"A: b\x00"),
    "a name beyond ASCII": headed(b"\xc3\xa9: b"),
    "bare CR in a value": headed(b"A: b\rC: d"),
    "bare LF after a value": GET + b"A: b\n\r\n",
    "bare LF after the first line": b"GET /asked HTTP/1.1\nHost: x\r\n\r\n",
    "bare LF at the end": GET + b"\n",
    "bare CR for line ends": b"GET /asked HTTP/1.1\rHost: x\r\r",
    "too many headers": headed(b"\r\n".join(b"A%d: b" % n for n in range(heads.MAX_HEADERS))),
    "a header that is too long": headed(b"A: " + b"b" * heads.MAX_BYTES),
    "another coding in Expect": framed(b"Content-Length: 3\r\nExpect: 200-ok"),
    # --- Framing ---
    "length and coding": framed(b"Content-Length: 3\r\nTransfer-Encoding: chunked", b""),
    "coding and length": framed(b"Transfer-Encoding: chunked\r\nContent-Length: 3", b""),
    "two lengths": framed(b"Content-Length: 3\r\nContent-Length: 30"),
    "the same length twice": framed(b"Content-Length: 3\r\nContent-Length: 3"),
    "a list of lengths": framed(b"Content-Length: 3, 3"),
    "a signed length": framed(b"Content-Length: +3"),
    "a negative length": framed(b"Content-Length: -3"),
    "a hexadecimal length": framed(b"Content-Length: 0x3"),
    "a length with a blank": framed(b"Content-Length: 3 3"),
    "no length": framed(b"Content-Length:"),
    "a length beyond 64 bits": framed(b"Content-Length: 18446744073709551619"),
    "identity": framed(b"Transfer-Encoding: identity", chunked(b"abc")),
    "gzip": framed(b"Transfer-Encoding: gzip, chunked", chunked(b"abc")),
    "identity, then chunked": framed(b"Transfer-Encoding: identity, chunked", chunked(b"abc")),
    "chunked, then identity": framed(b"Transfer-Encoding: chunked, identity", chunked(b"abc")),
    "two codings": framed(
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", chunked(b"abc")
    ),
    "chunked twice": framed(b"Transfer-Encoding: chunked, chunked", chunked(b"abc")),
    "a coding that ends like it": framed(b"Transfer-Encoding: xchunked", chunked(b"abc")),
    "a coding that begins like it": framed(b"Transfer-Encoding: chunkedx", chunked(b"abc")),
    "a coding with a parameter": framed(b"Transfer-Encoding: chunked;q=1", chunked(b"abc")),
    "a coding in quotes": framed(b'Transfer-Encoding: "chunked"', chunked(b"abc")),
    "a list with nothing in it": framed(b"Transfer-Encoding: ,chunked", chunked(b"abc")),
    "no coding": framed(b"Transfer-Encoding:", chunked(b"abc")),
    "chunked in HTTP/1.0": (
        b"POST /asked HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc")
    ),
    # --- Chunks: the body has begun ---
    "a chunk beyond 64 bits": in_chunks(b"fffffffffffffffff\r\n"),
    "a signed size": in_chunks(b"+3\r\nabc\r\n0\r\n\r\n"),
    "a size with a prefix": in_chunks(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a blank after a size": in_chunks(b"3 \r\nabc\r\n0\r\n\r\n"),
    "bare LF after a size": in_chunks(b"3\nabc\r\n0\r\n\r\n"),
    "bare LF in an extension": in_chunks(b"3;a\nabc\r\n0\r\n\r\n"),
    "a quoted line end": in_chunks(b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n'),
    "no line end after a chunk": in_chunks(b"3\r\nabc0\r\n\r\n"),
    "more than the chunk": in_chunks(b"3\r\nabcd\r\n0\r\n\r\n"),
    "a length among the trailers": in_chunks(b"0\r\nContent-Length: 3\r\n\r\n"),
    "a bad trailer": in_chunks(b"0\r\nA b: c\r\n\r\n"),
}  # fmt: skip
TAKEN = {
    "a URL of this host": line(b"GET http://x/asked HTTP/1.1"),
    "a URL of this host, in capitals": line(b"GET HTTPS://X/asked HTTP/1.1"),
    "blanks between the parts": line(b"GET  /asked  HTTP/1.1"),
    "line ends before it": b"\r\n\r\n\n" + line(b"GET /asked HTTP/1.1"),
    "a value beyond ASCII": headed(b"A: \xff"),
    "blanks around a value": headed(b"A: \t b \t "),
    "no value": headed(b"A:"),
    "a header twice that may be": headed(b"Cookie: a=b\r\nCookie: c=d"),
    "a length with a zero before it": framed(b"Content-Length: 03"),
    "blanks around a length": framed(b"Content-Length: \t3 "),
    "chunked in capitals": framed(b"Transfer-Encoding: Chunked ", chunked(b"abc")),
    "an extension": in_chunks(b"3;a=b;c\r\nabc\r\n0;d\r\n\r\n"),
    "a size with zeros before it": in_chunks(b"0003\r\nabc\r\n00\r\n\r\n"),
    "trailers": in_chunks(b"3\r\nabc\r\n0\r\nHost: evil\r\nContent-Type: a/b\r\n\r\n"),
    "an upgrade without its Connection": headed(b"Upgrade: foo"),
    "as many headers as there may be": headed(
        b"\r\n".join(b"A%d: b" % n for n in range(heads.MAX_HEADERS - 1))
    ),
    "a header that is not too long": headed(b"A: " + b"b" * (heads.MAX_BYTES - 100)),
}  # fmt: skip
LAST = {
    "Connection: close": headed(b"Connection: close"),
    "HTTP/1.0": b"GET /asked HTTP/1.0\r\n\r\n",
    "another protocol, by its version": line(b"SOURCE /asked ICE/1.0"),
    "HTTP/1.0 that would be kept": b"GET /asked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "an upgrade and close": headed(b"Connection: close, upgrade\r\nUpgrade: foo"),
    "an upgrade in HTTP/1.0": (
        b"GET /asked HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    ),
}


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "airi_server.web.middleware")
    return caplog


async def answered(served, *segments: bytes):
    async with line_to(served.base_url) as sent:
        await sent.send(*segments)
        found = await sent.answers(["GET"] * 4)
        assert await sent.end() == b""
        return found


class TestRefused:
    @pytest.mark.parametrize("case", REFUSED)
    async def test_is_answered_once_and_the_connection_ends(self, served, log, case):
        status = 417 if "Expect" in case else 400

        for inner in (b"", INNER):
            found = await answered(served, REFUSED[case] + inner, FOLLOWING)

            assert [each.status for each in found] == [status]
            assert found[0].headers["connection"] == "close"
            assert orjson.loads(found[0].body)["message"]
            for name, value in middleware.ALWAYS:
                assert found[0].headers[name.decode()] == value.decode()
            assert len(found[0].headers["x-request-id"]) == 36
        assert len(await told(log, 2)) == 2

    @pytest.mark.parametrize("case", ["no Host", "TLS", "identity", "a bad trailer"])
    async def test_comes_after_what_was_asked_for_before(self, served, log, case):
        before = request("GET", "/before")

        found = await answered(served, before + before + REFUSED[case] + INNER, FOLLOWING)

        assert [each.status for each in found] == [404, 404, 400]
        assert [b"No route matched GET /before" in each.body for each in found] == [
            True, True, False,
        ]  # fmt: skip
        assert len(await told(log, 3)) == 3

    @pytest.mark.parametrize("case", ["an asterisk", "no Host", "a chunk beyond 64 bits"])
    async def test_does_not_disturb_an_answer_under_way(self, served, upstream, case):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(answer(after_s=0.2))
        body = orjson.dumps({"messages": [{"role": "user", "content": "hi"}]})
        asked = request(
            "POST", "/v1/chat/completions", f"Authorization: Bearer {caller.key}", body=body
        )

        found = await answered(served, asked, REFUSED[case], INNER)

        assert [each.status for each in found] == [200, 400]
        assert orjson.loads(found[0].body)["choices"]
        (row,) = await gateway.requests()
        assert (row.state, row.outcome) == ("settled", "completed")

    async def test_says_so_in_the_shape_of_its_surface(self, served):
        (found,) = await answered(served, request("GET", "/v1/models", "Host: y"))

        assert orjson.loads(found.body)["error"]["code"] == "INVALID_REQUEST"

    async def test_to_a_page_says_who_may_read_it(self, served):
        origin = "http://localhost:5173"
        (found,) = await answered(
            served, request("OPTIONS", "/api/v1/flux", f"Origin: {origin}", "Host: y")
        )

        assert found.status == 400
        assert found.headers["access-control-allow-origin"] == origin

    async def test_of_a_head_request_has_no_body(self, served):
        async with line_to(served.base_url) as sent:
            await sent.send(request("HEAD", "/asked", "Host: y"))
            found = await sent.answer("HEAD")

            assert found is not None
            assert found.status == 400
            assert await sent.end() == b""


class TestTaken:
    @pytest.mark.parametrize("case", TAKEN)
    async def test_is_one_request_and_the_next_is_the_next(self, served, log, case):
        async with line_to(served.base_url) as sent:
            await sent.send(TAKEN[case], FOLLOWING)
            found = await sent.answers(["GET", "GET"])

        assert [each.status for each in found] == [404, 404]
        method = "POST" if TAKEN[case].startswith(POST) else "GET"
        # The first is told once its bytes have left, when the second is under way.
        assert set(await told(log, 2)) == {f"{method} /asked", "GET /following"}

    @pytest.mark.parametrize("case", LAST)
    async def test_as_the_last_request_ends_the_connection(self, served, log, case):
        for inner in (b"", INNER):
            log.clear()
            found = await answered(served, LAST[case] + inner, FOLLOWING)

            assert [each.status for each in found] == [404]
            assert found[0].headers["connection"] == "close"
            method = LAST[case].split()[0].decode()
            assert await told(log, 1) == [f"{method} /asked"]


class TestTrailers:
    async def test_are_headers_of_nothing(self, served):
        """Neither of their own request, whose key they would be, nor of the next."""
        caller = await gateway.caller()
        trailers = f"Authorization: Bearer {caller.key}\r\nX-Forwarded-For: 10.9.8.7"
        body = b"2\r\n{}\r\n0\r\n" + trailers.encode() + b"\r\n\r\n"
        head = request("GET", "/v1/models", "Transfer-Encoding: chunked")

        async with line_to(served.base_url) as sent:
            await sent.send(head, body + request("GET", "/v1/models"))
            found = await sent.answers(["GET", "GET"])

        assert [each.status for each in found] == [401, 401]

    @pytest.mark.parametrize(
        ("start", "flood"),
        [
            (b"2\r\n{}\r\n0\r\n", b"a: " + b"b" * 1_000 + b"\r\n"),
            (b"2\r\n{}\r\n0\r\n", b"a" * 1_000),
            (b"2\r\n{}\r\n0\r\n", b"a:" + b"b" * 2_000),
            (b"2;", b"a" * 1_000),
        ],
        ids=["trailers", "a name", "a value", "an extension"],
    )
    async def test_without_end_are_cut_off(self, served, monkeypatch, start, flood):
        monkeypatch.setattr(http_protocols, "MAX_OVERHEAD_BYTES", 100_000)
        caller = await gateway.caller()
        head = request(
            "POST", "/api/v1/keys", f"Authorization: Bearer {caller.key}",
            "Transfer-Encoding: chunked",
        )  # fmt: skip

        async with line_to(served.base_url) as sent:
            await sent.send(head, start)
            asking = asyncio.create_task(sent.answer())
            for _ in range(500):
                if asking.done():
                    break
                await sent.send(flood)
            found = await asking

        assert found is not None
        assert found.status == 400

    async def test_and_one_chunk_a_byte_are_no_flood(self, served, monkeypatch):
        monkeypatch.setattr(http_protocols, "MAX_OVERHEAD_BYTES", 1_000)
        caller = await gateway.caller()
        head = request(
            "POST", "/api/v1/keys", f"Authorization: Bearer {caller.key}",
            "Transfer-Encoding: chunked",
        )  # fmt: skip
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"name":"' + b"x" * 9_000 + b'"}')

        async with line_to(served.base_url) as sent:
            await sent.send(head, pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :])
            await sent.send(b"0\r\n\r\n")
            found = await sent.answer()

        assert found is not None
        assert b"Invalid" not in found.body
        assert found.headers.get("connection") != "close"


class TestExpect:
    HEAD = ("Expect: 100-Continue", "Content-Length: 3")

    async def test_is_answered_once_before_the_body(self, served):
        caller = await gateway.caller()
        asked = request(
            "POST", "/v1/chat/completions", f"Authorization: Bearer {caller.key}", *self.HEAD
        )
        async with line_to(served.base_url) as sent:
            for _ in range(2):
                await sent.send(asked)
                first = await sent.answer()
                await sent.send(b"[1", b"]")
                second = await sent.answer()

                assert first is not None
                assert second is not None
                assert (first.status, second.status) == (100, 400)

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/keys"])
    async def test_of_a_body_that_will_not_be_read_is_not_answered(self, served, settings, path):
        settings.MAX_BODY_BYTES = 2
        found = await answered(served, request("POST", path, *self.HEAD))

        assert [each.status for each in found] == [401 if path.startswith("/v1") else 413]

    async def test_with_the_body_at_once_or_without_one_needs_no_answer(self, served):
        async with line_to(served.base_url) as sent:
            await sent.send(request("POST", "/asked", *self.HEAD) + b"abc")
            await sent.send(request("GET", "/asked", self.HEAD[0]))
            found = await sent.answers(["POST", "GET"])

        assert [each.status for each in found] == [404, 404]

    async def test_of_http_1_0_means_nothing(self, served):
        head = b"POST /asked HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"

        found = await answered(served, head, b"abc")

        assert [each.status for each in found] == [404]


class TestPipeline:
    async def test_is_answered_in_order_up_to_a_bound_and_then_ends(self, served, log):
        asked = [request("GET", f"/asked/{number}") for number in range(40)]

        async with line_to(served.base_url) as sent:
            await sent.send(b"".join(asked))
            found = await sent.answers(["GET"] * 40)
            assert await sent.end() == b""

        # The first is being answered while the others wait.
        assert len(found) == 1 + http_protocols.MAX_PIPELINED
        for number, each in enumerate(found):
            assert f"GET /asked/{number}.".encode() in each.body
        assert found[-1].headers["connection"] == "close"
        assert len(await told(log, len(found))) == len(found)

    async def test_with_bodies_is_answered_in_order(self, served):
        asked = b"".join(
            request("POST", f"/asked/{number}", body=INNER * (number + 1)) for number in range(9)
        )
        cut = len(asked) // 2 + 3

        async with line_to(served.base_url) as sent:
            await sent.send(asked[:cut], asked[cut:])
            found = await sent.answers(["POST"] * 9)

        assert [f"POST /asked/{n}.".encode() in each.body for n, each in enumerate(found)] == [
            True
        ] * 9


@pytest.mark.parametrize("has_more", [False, True])
async def test_nothing_may_follow_a_handshake_before_its_answer(served, log, has_more):
    handshake = request(
        "GET", "/ws/v2/chat", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    async with line_to(served.base_url) as sent:
        await sent.send(handshake + (INNER if has_more else b""))
        async with asyncio.timeout(5):
            head = await sent.reader.readuntil(b"\r\n\r\n")

        assert head.split()[1] == (b"400" if has_more else b"101")
    assert "GET /inner" not in await told(log, int(has_more))
