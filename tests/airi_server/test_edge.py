"""What every answer carries: safe headers, an id, CORS; and what no one else answers."""

from __future__ import annotations

import pytest

from airi_server import edge
from tests.factories import gateway

TRUSTED = [
    "capacitor://localhost", "ai.moeru.airi-pocket://links", "https://airi.moeru.ai",
    "http://localhost", "http://localhost:5173", "https://localhost:5173", "https://localhost",
    "http://127.0.0.1:8080", "https://pr-1.kwaa.workers.dev", "https://a.b-c.kwaa.workers.dev",
    "http://192.168.1.5:5173", "HTTP://192.168.1.5:5173",
]  # fmt: skip
UNTRUSTED = [
    "null", "", "https://evil.example", "http://192.168.1.6:5173", "http://192.168.1.5",
    "https://airi.moeru.ai.evil.example", "https://airi.moeru.ai:444", "http://airi.moeru.ai",
    "https://evilkwaa.workers.dev", "https://.kwaa.workers.dev", "https://x.kwaa.workers.dev.evil",
    "http://x.kwaa.workers.dev", "https://x.kwaa.workers.dev:8443", "http://localhost.evil.example",
    "http://localhost@evil.example", "http://localhost:123456", "http://127.0.0.1.evil.example",
    "http://127.0.0.2", "http://[::1]:80", "http://[", "javascript:alert(1)", "http://localhost\n",
    "https://a@x.kwaa.workers.dev", "https://x/.kwaa.workers.dev", "file://",
]  # fmt: skip


class TestIsTrusted:
    @pytest.fixture(autouse=True)
    def _listed(self, settings):
        settings.ADDITIONAL_TRUSTED_ORIGINS = ["http://192.168.1.5:5173"]

    @pytest.mark.parametrize("origin", TRUSTED)
    def test_origins_of_ours(self, origin):
        """Case 154."""
        assert edge.is_trusted(origin)

    @pytest.mark.parametrize("origin", UNTRUSTED)
    def test_not_those_that_look_alike(self, origin):
        assert not edge.is_trusted(origin)


@pytest.mark.asyncio
class TestCORS:
    async def test_echoes_a_trusted_origin_on_every_answer(self, served):
        caller = await gateway.caller()
        for path, key in [("/api/v1/flux", caller.key), ("/api/v1/flux", None), ("/api/x", None)]:
            answered = await served.get(path, key, Origin="http://localhost:5173")

            assert answered.headers["access-control-allow-origin"] == "http://localhost:5173"
            assert answered.headers["access-control-allow-credentials"] == "true"
            assert answered.headers["vary"] == "Origin"

    async def test_gives_an_untrusted_one_nothing(self, served):
        answered = await served.get("/api/v1/flux", Origin="https://evil.example")

        assert "access-control-allow-origin" not in answered.headers
        assert answered.headers["vary"] == "Origin"

    async def test_is_for_the_api_only(self, served):
        for path in ("/livez", "/v1/models"):
            answered = await served.get(path, Origin="http://localhost:5173")
            assert "access-control-allow-origin" not in answered.headers

    async def test_answers_preflights_itself(self, served):
        asked = {
            "Origin": "http://localhost:5173",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answered = await served.send("OPTIONS", "/api/v1/openai/chat/completions", headers=asked)

        assert (answered.status, answered.body) == (204, b"")
        assert answered.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert answered.headers["access-control-allow-methods"] == "GET,HEAD,PUT,POST,DELETE,PATCH"
        assert answered.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "access-control-max-age" not in answered.headers
        for name, value in edge.ALWAYS:
            assert answered.headers[name.decode()] == value.decode()
        assert answered.headers.getall("vary") == ["Origin"]

        refused = await served.send(
            "OPTIONS", "/api/v1/flux", headers={**asked, "Origin": "https://evil.example"}
        )
        assert refused.status == 204
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.asyncio
class TestRequestId:
    async def test_is_ours_and_new_each_time(self, served):
        first = await served.get("/livez", **{"X-Request-Id": "theirs"})
        second = await served.get("/livez")

        ids = [answered.headers.getall("x-request-id") for answered in (first, second)]
        assert all(len(one) == 1 and len(one[0]) == 36 for one in ids)
        assert ids[0] != ids[1]


@pytest.mark.asyncio
class TestPages:
    async def test_keep_djangos_own_headers(self, served):
        answered = await served.get("/admin/login/")

        assert answered.status == 200
        assert answered.headers["content-type"].startswith("text/html")
        assert answered.headers["x-frame-options"] == "DENY"

    async def test_have_a_policy_of_their_own_that_runs_no_inline_script(self, served):
        answered = await served.get("/admin/login/")

        policy = dict(
            part.split(" ", 1) for part in answered.headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == "'self' 'unsafe-eval'"
        assert policy["connect-src"] == policy["form-action"] == "'self'"

    async def test_of_the_app_run_only_scripts_of_their_own_and_parse_no_markup(self, served):
        answered = await served.get("/app/chat")

        policy = dict(
            part.split(" ", 1) for part in answered.headers["content-security-policy"].split("; ")
        )
        assert answered.status == 200
        assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert b"<script>" not in answered.body
        assert b"style=" not in answered.body
        assert "set-cookie" not in answered.headers


@pytest.mark.asyncio
async def test_case_157_an_unknown_route_is_404_with_the_way_to_the_interface(served):
    for path in ("/nothing", "/api/nothing", "/api/v2/x", "/%2e%2e/etc/passwd", "//", "/livez/"):
        answered = await served.get(path)

        assert answered.status == 404
        assert answered.json()["error"] == "NOT_FOUND"
        assert answered.json()["ui"] == "https://airi.moeru.ai"
        assert answered.json()["message"].startswith("No route matched GET /")
