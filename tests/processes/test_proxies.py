"""Behind a real nginx that passes upgrades on: nobody's body is anybody's request."""

from __future__ import annotations

import http.client
import json

import httpx
import pytest
from websockets.sync.client import connect

from tests.factories import gateway
from tests.fakes.upstream import stream
from tests.lab.proxies import DeployedHAProxy, DeployedNginx, Nginx

PADDING = b"\r\n" * 400_000
"""More than nginx sends together with the head: what comes after it is read by itself."""
INNER = (
    b"GET /admin/login/ HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.66.66.66\r\n\r\n"
    b"GET /inner HTTP/1.1\r\nHost: localhost\r\n\r\n"
)
PATHS = ("/v1/chat/completions", "/api/v1/keys", "/livez", "/ws/chat", "/nothing")
UPGRADES = ("foo", "h2c", "websocket, foo", "websocket", "TLS/1.2, websocket")
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def nginx(fleet, tmp_path):
    """An nginx before a server that believes what it says of its clients."""
    server = fleet.start(TRUSTED_PROXIES=["127.0.0.1/32"])
    with Nginx(server, tmp_path / "nginx") as made:
        yield made


@pytest.fixture(params=[DeployedNginx, DeployedHAProxy])
def proxy(fleet, tmp_path, request):
    """A proxy as `docs/deploy.md` has it."""
    server = fleet.start(TRUSTED_PROXIES=["127.0.0.1/32"])
    with request.param(server, tmp_path / "proxy") as made:
        yield made


def smuggle(nginx, method, path, key, upgrade, *, is_chunked):
    """Send a request in the body of another; return its status, 0 if there was none."""
    client = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=20)
    headers = {"Upgrade": upgrade, "Connection": "Upgrade", "Authorization": f"Bearer {key}"}
    body = PADDING + INNER
    pieces = (body[start : start + 60_000] for start in range(0, len(body), 60_000))
    try:
        client.request(
            method, path, pieces if is_chunked else body, headers, encode_chunked=is_chunked
        )
        return client.getresponse().status
    except (http.client.HTTPException, OSError):
        return 0
    finally:
        client.close()


def requests_in(log):
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [each for each in lines if each["message"] == "Request ended"]


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_what_is_in_a_body_is_answered_to_nobody(nginx, method, is_chunked):
    caller = gateway.make_caller()
    tried: list[int] = []
    with httpx.Client(base_url=nginx.base_url) as victim:
        for path in PATHS:
            for upgrade in UPGRADES:
                key = caller.key if len(tried) % 2 else "nobody"
                tried.append(smuggle(nginx, method, path, key, upgrade, is_chunked=is_chunked))
                for number in range(3):
                    answered = victim.get(f"/mine/{number}")
                    assert answered.status_code == 404
                    assert answered.json()["message"] == f"No route matched GET /mine/{number}."

    assert max(tried) >= 200
    assert httpx.get(f"{nginx.base_url}/admin/login/").status_code == 403
    told = requests_in(nginx.server.log)
    assert len([each for each in told if each["path"].startswith("/mine/")]) == 3 * len(tried)
    assert not [each for each in told if each["path"].startswith(("/admin", "/inner"))]
    assert "10.66.66.66" not in nginx.server.log.read_text()


def test_clients_that_offer_http_2_are_served(nginx, provider):
    gateway.make_route(provider.base_url)
    caller = gateway.make_caller(flux=100)
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    headers = {**offer, "Authorization": f"Bearer {caller.key}"}
    for _ in range(3):
        for base_url in (nginx.base_url, nginx.server.base_url):
            answered = httpx.post(f"{base_url}/v1/chat/completions", json=BODY, headers=headers)
            assert answered.status_code == 200

    provider.script(stream())
    body = {**BODY, "stream": True}
    streamed = httpx.post(f"{nginx.base_url}/v1/chat/completions", json=body, headers=headers)
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_sockets_work_through_it(nginx):
    caller = gateway.make_caller()
    place = nginx.base_url.replace("http", "ws", 1)
    for _ in range(2):
        with connect(f"{place}/ws/chat?token={caller.key}", proxy=None) as socket:
            assert "adapters:hono-ws:connected" in socket.recv(10)
            socket.send("{")
            assert "adapters:hono-ws:error" in socket.recv(10)
    answered = httpx.get(f"{nginx.base_url}/livez", headers={"Upgrade": "websocket"})
    assert answered.status_code == 200


def test_what_is_in_a_body_stays_in_it_behind_each_proxy_of_a_deployment(proxy):
    caller = gateway.make_caller()
    tried: list[int] = []
    with httpx.Client(base_url=proxy.base_url) as victim:
        for upgrade in UPGRADES:
            for path in ("/v1/chat/completions", "/ws/chat"):
                tried.append(smuggle(proxy, "POST", path, caller.key, upgrade, is_chunked=False))
                assert victim.get("/mine").json()["message"] == "No route matched GET /mine."

    assert max(tried) >= 200
    told = requests_in(proxy.server.log)
    assert not [each for each in told if each["path"].startswith(("/admin", "/inner"))]
    assert "10.66.66.66" not in proxy.server.log.read_text()


def test_streams_and_sockets_pass_each_proxy_of_a_deployment(proxy, provider):
    gateway.make_route(provider.base_url)
    caller = gateway.make_caller(flux=100)
    provider.script(stream(pause_s=0.3))
    headers = {"Authorization": f"Bearer {caller.key}", "X-Forwarded-For": "203.0.113.9"}
    body = {**BODY, "stream": True}
    url = f"{proxy.base_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers) as answered:
        parts = list(answered.iter_raw())
    assert len(parts) > 2
    assert parts[-1].endswith(b"data: [DONE]\n\n")

    place = proxy.base_url.replace("http", "ws", 1)
    with connect(f"{place}/ws/chat?token={caller.key}", proxy=None) as socket:
        assert "adapters:hono-ws:connected" in socket.recv(10)
    assert "203.0.113.9" not in proxy.server.log.read_text()
