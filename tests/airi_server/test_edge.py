"""What every answer carries: safe headers, an id, CORS; and what no one else answers."""

from __future__ import annotations

import pytest

from airi_server.web import middleware
from tests.airi_server.endpoints import ALWAYS
from tests.factories import gateway

TRUSTED = [
    "https://accounts.airi.build", "https://server-dev.airi-server-auth.pages.dev",
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
        assert middleware.is_trusted(origin)

    @pytest.mark.parametrize("origin", UNTRUSTED)
    def test_not_those_that_look_alike(self, origin):
        assert not middleware.is_trusted(origin)


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
        answered = await served.get("/livez", Origin="http://localhost:5173")

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
        assert ALWAYS.items() <= {n.lower(): v for n, v in answered.headers.items()}.items()
        assert answered.headers.getall("vary") == ["Origin"]

        refused = await served.send(
            "OPTIONS", "/api/v1/flux", headers={**asked, "Origin": "https://evil.example"}
        )
        assert refused.status == 204
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.asyncio
class TestPagesThatCallTheGateway:
    MINE, OTHER = "http://localhost:5173", "https://evil.example"
    ASKED = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    PATHS = ("/v1/chat/completions", "/v1/models", "/v1/nothing", "/api/v1/flux", "/api/nothing")

    def allowed(self, answered):
        return answered.headers.get("access-control-allow-origin")

    @pytest.mark.parametrize("path", PATHS)
    async def test_preflights_are_never_refused(self, served, path):
        for origin, allowed in ((self.MINE, self.MINE), (self.OTHER, None), ("null", None)):
            given = {**self.ASKED, "Origin": origin}
            answered = await served.send("OPTIONS", path, headers=given)

            assert (answered.status, answered.body) == (204, b"")
            assert self.allowed(answered) == allowed
            asked = self.ASKED["Access-Control-Request-Headers"]
            assert answered.headers["access-control-allow-headers"] == asked
            assert "access-control-expose-headers" not in answered.headers

    async def test_of_a_trusted_origin_read_answers_and_refusals(self, served, upstream):
        caller = await gateway.caller(flux=10)
        await gateway.route(upstream.base_url)
        body = {"messages": [{"role": "user", "content": "hi"}]}
        for key, status in ((caller.key, 200), ("no", 401)):
            answered = await served.post("/v1/chat/completions", body, key, Origin=self.MINE)

            assert answered.status == status
            assert self.allowed(answered) == self.MINE
            assert answered.headers["vary"] == "Origin"
            exposed = set(answered.headers["access-control-expose-headers"].split(", "))
            assert {"x-request-id", "x-airi-flux-charged", "retry-after"} <= exposed
            assert {"x-airi-max-tokens", "x-airi-dropped", "ratelimit-remaining"} <= exposed
            ours = {n.lower() for n in answered.headers if n.lower().startswith(("x-airi", "rate"))}
            assert ours <= exposed

    async def test_of_others_read_nothing(self, served):
        answered = await served.get("/v1/models", Origin=self.OTHER)

        assert self.allowed(answered) is None

    async def test_of_origins_for_keys_alone_read_the_gateway_without_credentials(
        self, served, settings
    ):
        settings.V1_CORS_ORIGINS = ["https://shop.example"]
        for path, allowed in (("/v1/models", "https://shop.example"), ("/api/v1/flux", None)):
            answered = await served.get(path, Origin="https://shop.example")

            assert self.allowed(answered) == allowed
        gateways = await served.get("/v1/models", Origin="https://shop.example")
        assert "access-control-allow-credentials" not in gateways.headers
        assert gateways.headers["vary"] == "Origin"
        assert self.allowed(await served.get("/v1/models", Origin=self.OTHER)) is None

    async def test_of_any_origin_if_the_operator_says_so(self, served, settings):
        settings.V1_CORS_ORIGINS = ["*"]
        for origin in (self.MINE, self.OTHER, "null"):
            given = {**self.ASKED, "Origin": origin}
            preflight = await served.send("OPTIONS", "/v1/models", headers=given)
            answered = await served.get("/v1/models", Origin=origin)

            for each in (preflight, answered):
                assert self.allowed(each) == "*"
                assert "access-control-allow-credentials" not in each.headers
        assert self.allowed(await served.get("/api/v1/flux", Origin=self.OTHER)) is None

    async def test_are_meant_and_not_programs(self, served, settings):
        settings.V1_CORS_ORIGINS = ["*"]
        answered = await served.get("/v1/models")

        assert [n for n in answered.headers if n.lower().startswith(("access", "vary"))] == []


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
