"""A wrong address is answered with what was probably meant, and with nothing that is not public."""

from __future__ import annotations

import time

import pytest

from airi_server.web import nearby
from tests.factories import gateway

pytestmark = pytest.mark.asyncio
HERE = "http://127.0.0.1:8000/v1"


class TestHint:
    @pytest.mark.parametrize(
        ("path", "hint"),
        [
            ("/v1/chat/completion", "There is /v1/chat/completions."),
            ("/v1/models/", "There is /v1/models."),
            ("/V1/Models", "There is /v1/models."),
            ("/openai/v1/chat/completions", "There is /v1/chat/completions."),
            ("/api/v1/chat/completions", "There is /v1/chat/completions."),
            ("/v1/embeddings", "There is /v1/chat/completions, /v1/models."),
            ("/api/v1/ws-ticket", "There is /api/v1/ws-tickets."),
            ("/api/v1/chat/a-1/members", "There is /api/v1/chats/{id}/members."),
            ("/api/v1/flux/reqests/00-11", "There is /api/v1/flux/requests/{request_id}."),
            ("/v1/v1/models", f"/v1 is there twice: your client's base URL is {HERE}."),
            ("/chat/completions", f"The API is under /v1: set your client's base URL to {HERE}."),
            ("/models", f"The API is under /v1: set your client's base URL to {HERE}."),
            ("/nothing", ""),
            ("/", ""),
        ],
    )
    async def test_says_what_is_near(self, path, hint):
        found = nearby.hint(path)

        assert found.startswith(hint.removesuffix("."))
        assert bool(found) == bool(hint)

    @pytest.mark.parametrize(
        "path", ["/api/admin/flux-grant", "/admi/", "/admin/logn", "/api/admin/config/routers"]
    )
    async def test_never_leads_to_the_operators(self, path):
        assert "admin" not in nearby.hint(path)

    async def test_names_nothing_but_public_addresses(self):
        routes = nearby.public_routes()

        assert "/v1/chat/completions" in routes
        assert all(route.startswith(("/v1/", "/api/v1/")) for route in routes)
        assert "/api/v1/openai/chat/completion" not in routes

    async def test_of_a_long_path_costs_little(self):
        nearby._near.cache_clear()
        began = time.process_time()

        for number in range(50):
            nearby.hint(f"/api/v1/chats/{number}" + "/members" * 8_000)

        assert time.process_time() - began < 0.5


class TestAnswer:
    async def test_is_still_the_contract_s(self, served):
        answered = await served.get("/api/v1/chat")

        assert answered.status == 404
        assert answered.json() == {
            "error": "NOT_FOUND",
            "message": "No route matched GET /api/v1/chat. There is /api/v1/chats, "
            "/api/v1/chats/{id}, /api/v1/characters.",
            "ui": "https://airi.moeru.ai",
        }

    async def test_to_an_sdk_without_v1_is_one_it_reads(self, served):
        answered = await served.post("/chat/completions", {}, "sk-airi-x")

        assert answered.status == 404
        error = answered.json()["error"]
        assert (error["code"], error["type"]) == ("NOT_FOUND", "not_found_error")
        assert error["message"] == answered.json()["message"]
        assert f"set your client's base URL to {HERE}." in error["message"]

    async def test_repeats_a_long_path_shortly(self, served):
        answered = await served.get("/" + "x" * 5_000)

        assert len(answered.json()["message"]) < 300

    async def test_says_which_methods_there_are(self, served):
        caller = await gateway.caller()

        ours = await served.get("/v1/chat/completions", caller.key)
        assert (ours.status, ours.headers["allow"]) == (405, "POST")
        assert ours.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
        assert ours.json()["message"].endswith("It takes POST.")

        contracts = await served.send("PUT", "/api/v1/keys", key=caller.key)
        assert (contracts.status, contracts.json()["error"]) == (404, "NOT_FOUND")
        assert set(contracts.headers["allow"].split(", ")) == {"GET", "POST"}

    async def test_to_nobody_we_know_says_nothing_of_methods(self, served):
        answered = await served.get("/v1/chat/completions")

        assert (answered.status, "allow" in answered.headers) == (401, False)
