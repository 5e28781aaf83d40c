"""Which refusals are recorded, of whom and what for; and that their clients wait for nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from airi_server import asgi
from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from airi_server.web import fast_path, refusal_records
from billing.models import LLMRequestLog, RefusalHour, RefusedRequest
from billing.usage import refusals
from llmrouter.routing import planning
from tests.factories import gateway
from tests.fakes.upstream import refuse
from tests.lab.server import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

PATHS = [path for _, path in refusal_records.KINDS]
PATH = PATHS[0]
BODY = {"model": "chat-default", "messages": [{"role": "user", "content": "hi"}]}
LONG = {"model": "chat-default", "messages": [{"role": "user", "content": "hi" * 5_000}]}


@dataclass(frozen=True)
class Case:
    """How a request comes to be refused, and what its row says; `model` in its hour, if another."""

    status: int
    code: str
    model: str = "chat-default"
    body: Any = field(default_factory=lambda: BODY)
    flux: int = 1000
    key: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    counted_as: str | None = None


CASES = {
    "with too little Flux": Case(402, "PAYMENT_REQUIRED", flux=0),
    "of a model its key may not use": Case(403, "FORBIDDEN", key={"allowed_models": ["other"]}),
    "from another address": Case(403, "FORBIDDEN", "", key={"allowed_addresses": ["192.0.2.1"]}),
    "of an unknown model": Case(
        400, "unknown_model", "none", body={**BODY, "model": "none"}, counted_as=""
    ),
    "of an unknown model its key may not use": Case(
        403, "FORBIDDEN", "none", body={**BODY, "model": "none"},
        key={"allowed_models": ["other"]}, counted_as="",
    ),
    "with a body that is none": Case(400, "INVALID_BODY", "", body=[]),
    "with a bad idempotency key": Case(
        400, "INVALID_REQUEST", "", headers={"Idempotency-Key": "a b"}
    ),
    "that is too long": Case(413, "PAYLOAD_TOO_LARGE", "", body=LONG),
    "that came too soon": Case(429, "TOO_MANY_REQUESTS", "", key={"requests_per_minute": 1}),
}  # fmt: skip


@in_thread
def rows():
    return list(RefusedRequest.objects.order_by("id"))


@in_thread
def hours():
    found = RefusalHour.objects.order_by("user_id", "code")
    return list(found.values_list("user_id", "api_key_id", "model", "code", "count"))


async def written():
    """Wait until everything that was refused is in the database."""
    await refusals.close()


class Held:
    """While it is entered nobody can write a count."""

    def __enter__(self):
        self.session = psycopg.connect(database_url())
        self.session.execute("LOCK TABLE refusal_hour IN ACCESS EXCLUSIVE MODE")
        return self

    def __exit__(self, *_):
        self.session.close()


class TestRecorded:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("case", CASES)
    async def test_on_every_path(self, served, upstream, settings, case, path):
        wanted = CASES[case]
        settings.MAX_GATEWAY_BODY_BYTES = 5_000
        caller = await gateway.caller(flux=wanted.flux, **wanted.key)
        await gateway.route(upstream.base_url)
        if wanted.status == 429:
            await served.post(path, wanted.body, caller.key)
        got = await served.post(path, wanted.body, caller.key, **wanted.headers)
        await written()

        assert (got.status, got.json()["error"]["code"]) == (wanted.status, wanted.code)
        (row,) = await rows()
        assert row.id == UUID(got.headers["x-request-id"])
        assert (row.user_id, row.api_key_id) == (caller.user_id, caller.key_id)
        assert (row.model, row.kind, row.status, row.code) == (
            wanted.model, "chat", wanted.status, wanted.code,
        )  # fmt: skip
        assert row.message == got.json()["message"][:200]
        counted_as = wanted.model if wanted.counted_as is None else wanted.counted_as
        assert await hours() == [(caller.user_id, caller.key_id, counted_as, wanted.code, 1)]

    async def test_without_a_known_caller_is_counted_only(self, served):
        for key in (None, "sk-airi-nobody"):
            assert (await served.post(PATH, BODY, key)).status == 401
        await written()

        assert await rows() == []
        assert await hours() == [("", "", "", "UNAUTHORIZED", 2)]

    async def test_while_every_key_of_the_model_rests(self, served, upstream):
        """The first calls find out, and have rows; from then on nobody calls."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(refuse(401))
        answers = [await served.post(PATH, BODY, caller.key) for _ in range(6)]
        await written()

        opened = {str(request.id) for request in await gateway.requests()}
        refused = {str(row.id): row.status for row in await rows()}
        assert opened | refused.keys() == {got.headers["x-request-id"] for got in answers}
        assert not opened & refused.keys()
        assert set(refused.values()) == {502}
        assert await hours() == [
            (caller.user_id, caller.key_id, "chat-default", "BAD_GATEWAY", len(refused))
        ]

    async def test_while_the_first_with_its_key_runs(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        asked, go_on = asyncio.Event(), asyncio.Event()
        first_step = upstream.steps[0]

        async def slow(request):
            asked.set()
            await go_on.wait()
            return await first_step(request)

        upstream.script(slow)
        key = {"Idempotency-Key": "k"}
        first = asyncio.create_task(served.post(PATH, BODY, caller.key, **key))
        await asked.wait()
        got = await served.post(PATH, BODY, caller.key, **key)
        go_on.set()
        await first
        await written()

        assert [(row.id, row.code) for row in await rows()] == [
            (UUID(got.headers["x-request-id"]), "IN_FLIGHT")
        ]

    async def test_while_the_database_is_away(self, served, upstream, monkeypatch):
        """It is known whose it is for a while, and the next statement that works counts it."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await served.post(PATH, BODY, caller.key)

        async def away(*_args, **_more):
            raise psycopg.OperationalError

        with monkeypatch.context() as broken:
            broken.setattr(database, "retried", away)
            got = await served.post(PATH, BODY, caller.key)
            assert got.status == 503
            lane = refusals._lanes.get()
            async with asyncio.timeout(5):
                while lane._waiting or lane._drain:
                    await asyncio.sleep(0.01)
        await written()

        assert await rows() == []
        assert await hours() == [
            (caller.user_id, caller.key_id, "chat-default", "SERVICE_UNAVAILABLE", 1)
        ]

    async def test_a_crash_before_anything_is_held(self, served, upstream, monkeypatch):
        def crash(*_args):
            raise ValueError("a bug")

        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        monkeypatch.setattr(planning, "plan", crash)
        got = await served.post(PATH, BODY, caller.key)
        await written()

        (row,) = await rows()
        assert (got.status, row.code, row.model) == (500, "INTERNAL_SERVER_ERROR", "chat-default")
        assert row.message == "Internal Server Error"

    async def test_without_secrets(self, served, upstream):
        """Some paste their key where the model belongs."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await served.post(PATH, {**BODY, "model": caller.key}, caller.key)
        await written()

        (row,) = await rows()
        assert row.model == f"{caller.key[:9]}…"
        assert caller.key[20:] not in f"{row.model} {row.message}"


class TestNotRecorded:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_has_a_row_of_its_own(self, served, upstream, stream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(refuse(500))
        got = await served.post(PATH, {**BODY, "stream": stream}, caller.key)
        await written()

        find = LLMRequestLog.objects.filter(pk=got.headers["x-request-id"]).get
        assert (got.status, (await in_thread(find)()).state) == (502, "voided")
        assert (await rows(), await hours()) == ([], [])

    async def test_what_is_no_completion(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        found = [
            await served.get("/v1/models/none", caller.key),
            await served.get(PATH, caller.key),
            await served.post("/v1/completions", BODY, caller.key),
            await served.get("/api/v1/flux/requests/none", caller.key),
            await served.get("/api/v1/keys"),
        ]
        await written()

        assert [got.status for got in found] == [404, 405, 404, 404, 401]
        assert (await rows(), await hours()) == ([], [])

    async def test_what_is_answered(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        assert (await served.post(PATH, BODY, caller.key)).status == 200
        await written()

        assert (await rows(), await hours()) == ([], [])


class TestClient:
    async def test_has_its_answer_before_anything_is_written(self, served):
        caller = await gateway.caller(flux=0)
        with Held():
            got = await served.post(PATH, BODY, caller.key)
            assert got.status == 503
            assert await rows() == []
        await written()

        assert [row.id for row in await rows()] == [UUID(got.headers["x-request-id"])]

    async def test_is_gone_while_its_exchange_waits_for_the_row(self, hot, monkeypatch):
        """Nothing is left to a task that nobody waits for."""
        monkeypatch.setattr(refusals, "PATIENCE_S", 30)
        caller = await gateway.caller(flux=0)
        answered = asyncio.Event()

        async def receive():
            return {"type": "http.request", "body": orjson.dumps(BODY), "more_body": False}

        async def send(message):
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()

        with Held() as held:
            exchange = asyncio.create_task(asgi.application(scope_of(caller), receive, send))
            async with asyncio.timeout(5):
                await answered.wait()
            done, _ = await asyncio.wait({exchange}, timeout=0.1)
            assert (done, await rows()) == (set(), [])
            held.session.rollback()
            await exchange

        assert len(await rows()) == 1

    async def test_is_answered_again_on_the_same_connection(self, served, upstream):
        """What is not written yet keeps nobody from asking for the next; it is not theirs."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        host, port = served.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with Held():
            async with asyncio.timeout(5):
                for model, status in (("none", b"400"), ("chat-default", b"200")):
                    writer.write(raw({**BODY, "model": model}, caller.key))
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.split()[1] == status
                    await reader.readexactly(length_of(head))
        writer.close()
        await written()

        assert [row.code for row in await rows()] == ["unknown_model"]

    async def test_costs_one_round_trip_more_than_before(self, served, upstream, still):
        caller = await gateway.caller(flux=0)
        await gateway.route(upstream.base_url)
        await served.post(PATH, BODY, caller.key)
        await still()
        trips = database.round_trips

        await served.post(PATH, BODY, caller.key)
        await written()

        assert database.round_trips - trips == 2, "to be refused a hold, and to be recorded"

    async def test_a_flood_is_counted_and_leaves_a_hundred_rows(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        body = {**BODY, "model": "none"}
        for _ in range(6):
            await asyncio.gather(*(served.post(PATH, body, caller.key) for _ in range(50)))
        await written()

        assert len(await rows()) == 100
        assert await hours() == [(caller.user_id, caller.key_id, "", "unknown_model", 300)]

    async def test_a_flood_of_strangers_is_written_with_what_follows(self, served, upstream, still):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        await served.post(PATH, BODY, caller.key)
        await still()
        trips = database.round_trips

        await asyncio.gather(*(served.post(PATH, BODY, "nonsense") for _ in range(200)))

        assert database.round_trips == trips
        await served.post(PATH, {**BODY, "model": "none"}, caller.key)
        await written()
        assert database.round_trips == trips + 1
        assert [hour[4] for hour in await hours()] == [200, 1]


def scope_of(caller):
    """Return a completion as a server hands it to the application."""
    return {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": PATH,
        "raw_path": PATH.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {caller.key}".encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip


def raw(body, key):
    content = orjson.dumps(body)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def length_of(head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    raise AssertionError(head)


async def test_kinds_have_every_path_of_the_fast_way():
    assert {path for method, path in refusal_records.KINDS if method == "POST"} >= fast_path.PATHS
