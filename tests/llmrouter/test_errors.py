"""Refusals of the completions route: who may call, with what, and what it is told."""

from __future__ import annotations

import asyncio

import pytest

from tests.factories import gateway
from tests.fakes.upstream import stream

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
PATHS = (PATH, "/api/v1/openai/chat/completions", "/api/v1/openai/chat/completion")
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def error_of(response):
    """Return OpenAI's error object, after checking that older clients can read it too."""
    body = response.json()
    assert set(body) <= {"error", "message", "details", "ui"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["message"] == body["error"]["message"]
    return body["error"]


class TestWhoMayCall:
    async def test_case_1_nobody_without_credentials(self, served, upstream):
        await gateway.route(upstream.base_url)
        for key in (None, "sk-airi-nobody", "x" * 5_000):
            for path in PATHS:
                response = await served.post(path, BODY, key)
                assert (response.status, error_of(response)["code"]) == (401, "UNAUTHORIZED")
                assert error_of(response)["type"] == "authentication_error"
        assert upstream.seen == []

    async def test_only_with_models_the_key_allows(self, served, upstream):
        caller = await gateway.caller(allowed_models=["other"])
        await gateway.route(upstream.base_url)

        response = await served.post(PATH, BODY, caller.key)

        assert (response.status, error_of(response)["code"]) == (403, "FORBIDDEN")
        assert error_of(response)["param"] == "model"
        assert error_of(response)["message"] == (
            "This key may not use the model 'chat-default'. No model is available."
        )
        listed = await served.get("/v1/models", caller.key)
        assert listed.json()["data"] == []  # not even auto, which means chat-default
        assert (await served.get("/v1/models/chat-default", caller.key)).status == 404
        assert await gateway.requests() == []

    async def test_with_a_model_the_key_allows_by_its_name_or_as_the_default(
        self, served, upstream
    ):
        caller = await gateway.caller(allowed_models=["chat-default"])
        await gateway.route(upstream.base_url)

        for name in ("auto", "chat-default"):
            response = await served.post(PATH, {**BODY, "model": name}, caller.key)
            assert response.status == 200
        assert [row.model for row in await gateway.requests()] == ["chat-default"] * 2

    async def test_with_auto_by_that_name_whatever_it_means_now(self, served, upstream):
        caller = await gateway.caller(allowed_models=["auto"])
        await gateway.route(upstream.base_url)

        assert (await served.post(PATH, BODY, caller.key)).status == 200
        named = await served.post(PATH, {**BODY, "model": "chat-default"}, caller.key)
        listed = (await served.get("/v1/models", caller.key)).json()["data"]

        assert named.status == 403
        assert [model["id"] for model in listed] == ["auto"]
        assert "chat-default at present" in listed[0]["description"]


class TestInsufficientFlux:
    async def test_case_2_and_3_is_402_with_the_numbers(self, served, upstream):
        await gateway.option("FLUX_PER_REQUEST", 38)
        await gateway.route(upstream.base_url)
        upstream.script(stream())
        for flux in (0, 5, 37):
            caller = await gateway.caller(flux=flux)
            for streamed in (False, True):
                response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

                assert response.status == 402
                assert error_of(response) == {
                    "message": "Insufficient flux", "type": "insufficient_quota", "param": None,
                    "code": "PAYMENT_REQUIRED",
                }  # fmt: skip
                assert response.json()["details"] == {"available": flux, "required": 38}
                assert response.headers["x-should-retry"] == "false"
            assert await gateway.debits(caller.user_id) == []
        assert (upstream.seen, await gateway.requests()) == ([], [])

    async def test_case_4_for_ten_at_once_too(self, served, upstream):
        await gateway.option("FLUX_PER_REQUEST", 38)
        caller = await gateway.caller(flux=5)
        await gateway.route(upstream.base_url)

        responses = await asyncio.gather(*(served.post(PATH, BODY, caller.key) for _ in range(10)))

        assert {response.status for response in responses} == {402}
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held, upstream.seen) == (5, 0, [])

    async def test_comes_also_from_the_keys_own_limit(self, served, upstream):
        caller = await gateway.caller(flux=100, limit_total=6)
        await gateway.route(upstream.base_url)

        statuses = [(await served.post(PATH, BODY, caller.key)).status for _ in range(3)]

        assert statuses == [200, 200, 402]


class TestNotRouted:
    async def test_case_21_a_method_is_404_signed_in_and_401_otherwise(self, served):
        caller = await gateway.caller()
        for path in (*PATHS, "/api/v1/openai/anything", "/v1/nothing", "/v1/audio/speech/x"):
            signed_in = await served.get(path, caller.key)
            anonymous = await served.get(path)

            is_ours = path == PATH  # the contract's addresses answer 404, whatever the method
            expected = (405, "METHOD_NOT_ALLOWED") if is_ours else (404, "NOT_FOUND")
            assert (signed_in.status, error_of(signed_in)["code"]) == expected
            assert signed_in.json()["ui"].startswith("https://")
            assert (anonymous.status, error_of(anonymous)["code"]) == (401, "UNAUTHORIZED")

    async def test_an_unknown_model_is_told_which_this_key_may_use(self, served, upstream):
        await gateway.route(upstream.base_url)
        free = await gateway.caller()
        bound = await gateway.caller(allowed_models=["gpt-4o", "other"])
        asked = {**BODY, "model": "gpt-4o"}

        told = error_of(await served.post(PATH, asked, free.key))
        assert told["message"] == "There is no model 'gpt-4o'. Available: chat-default."
        assert (told["code"], told["param"]) == ("unknown_model", "model")
        told = await served.post(PATH, asked, bound.key)
        assert error_of(told)["message"] == "There is no model 'gpt-4o'. No model is available."
        assert told.json()["details"] == {"requested": "gpt-4o", "available": []}
        told = error_of(await served.get("/v1/models/gpt-4o", free.key))
        assert told["message"] == "There is no model 'gpt-4o'. Available: auto, chat-default."

    async def test_auto_that_means_nothing_any_more_says_so_and_is_not_listed(
        self, served, upstream
    ):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await gateway.option("DEFAULT_CHAT_MODEL", "gone")

        told = error_of(await served.post(PATH, BODY, caller.key))
        listed = (await served.get("/v1/models", caller.key)).json()["data"]

        assert told["message"] == (
            "auto means 'gone' at present, and there is no such model. Available: chat-default."
        )
        assert told["code"] == "unknown_model"
        assert [model["id"] for model in listed] == ["chat-default"]

    async def test_auto_is_listed_and_explained_to_whom_may_use_it(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)

        listed = (await served.get("/v1/models", caller.key)).json()

        assert listed == {
            "object": "list",
            "data": [
                {
                    "id": "auto", "object": "model", "created": 0, "owned_by": "airi",
                    "description": "What the operator has chosen as the default: chat-default at "
                    "present.",
                },
                {"id": "chat-default", "object": "model", "created": 0, "owned_by": "airi"},
            ],
        }  # fmt: skip
        assert (await served.get("/v1/models/auto", caller.key)).json() == listed["data"][0]

    async def test_a_trailing_slash_is_no_redirect(self, served):
        caller = await gateway.caller()

        for path in (PATH + "/", "/v1/models/", "/api/v1/flux/"):
            response = await served.send(
                "POST", path, key=caller.key, json=BODY, allow_redirects=False
            )
            assert response.status == 404


class TestBody:
    async def test_case_23_that_is_no_json_is_400(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        for path in PATHS:
            for data in (b"{", b"", b"[]", b"\xff"):
                response = await served.send("POST", path, key=caller.key, data=data)
                assert (response.status, error_of(response)["code"]) == (400, "INVALID_BODY")
        response = await served.post(PATH, {**BODY, "max_tokens": True}, caller.key)
        assert error_of(response)["param"] == "max_tokens"
        assert upstream.seen == []

    async def test_case_22_is_the_same_on_every_path(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)

        bodies = {(await served.post(path, BODY, caller.key)).body for path in PATHS}

        assert len(bodies) == 1
        assert len(await gateway.requests()) == 3


class TestBug:
    async def test_is_500_and_says_nothing(self, served, upstream, monkeypatch):
        """A crash in the middle of a request still ends its row and gives back its hold."""
        from llmrouter.upstream import client

        async def crash(*_args, **_kwargs):
            raise RuntimeError("secret detail")

        monkeypatch.setattr(client, "post", crash)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)

        for streamed in (False, True):
            response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

            assert (response.status, error_of(response)["code"]) == (500, "INTERNAL_SERVER_ERROR")
            assert b"secret detail" not in response.body
            assert response.headers["x-content-type-options"] == "nosniff"
        rows = await gateway.requests()
        assert {(r.state, r.outcome, r.error_code) for r in rows} == {
            ("voided", "server_error", "RuntimeError")
        }
        assert (await gateway.account(caller.user_id)).held == 0


async def test_a_database_that_is_away_is_503_with_retry_after(database_line, served, upstream):
    caller = await gateway.caller()
    await gateway.route(upstream.base_url)
    await served.post(PATH, BODY, caller.key)
    database_line.cut()

    for path in ("/api/v1/flux", "/api/v1/flux/history"):
        response = await served.get(path, caller.key)
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert response.json()["error"] == "SERVICE_UNAVAILABLE"
