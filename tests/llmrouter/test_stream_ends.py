"""How streams end early: the client leaves, the database is away, the server notes how far."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from airi_server.kernel import database
from billing import requests as paid_requests
from llmrouter.completions import streaming
from llmrouter.configuration import tree
from tests.factories import gateway
from tests.fakes import upstream as fake
from tests.fakes.upstream import DONE, chunk, frames, stream
from tests.llmrouter.exchanges import balance_is, closed, opened

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
WANTS_USAGE = {**BODY, "stream_options": {"include_usage": True}}
PROMPT = len(json.dumps(BODY)) // 4
QUICK = tree.Defaults(per_attempt_timeout_ms=500, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


class TestClientGone:
    """Exactly one closed row at every place a client can leave, and the upstream let go."""

    @pytest.mark.parametrize("taken", [0, 1, 3])
    async def test_mid_stream(self, served, upstream, taken):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        parts = [chunk("word" * 10)] * 5
        upstream.script(stream(parts, pause_s=0.05, then="hang"))

        async with opened(served, caller.key) as response:
            for _ in range(taken):
                await response.content.readuntil(b"\n\n")
        left_at = asyncio.get_running_loop().time()
        (row,) = await closed()

        assert asyncio.get_running_loop().time() - left_at < 10
        assert upstream.aborted == 1
        assert (row.outcome, row.usage_source) == ("client_gone", "estimated")
        assert (row.prompt_tokens, row.completion_tokens) == (PROMPT, 50)
        assert row.flux_charged == 1
        await balance_is(caller, 99)

    async def test_just_before_the_usage_report_pays_what_is_reported(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        first, rest = frames("a")[:1], frames("a", use=(2_000, 2_000))[1:]

        async def step(request):
            return await stream([*first, *[b": wait\n\n"] * 4, *rest], pause_s=0.1)(request)

        upstream.script(step)

        async with opened(served, caller.key) as response:
            await response.content.readuntil(b"\n\n")
        (row,) = await closed()

        assert (row.outcome, row.usage_source, row.flux_charged) == ("completed", "reported", 4)
        assert upstream.aborted == 0

    async def test_after_the_end_changes_nothing(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream())

        async with opened(served, caller.key) as response:
            await response.content.readuntil(DONE)
        (row,) = await closed()

        assert (row.outcome, row.flux_charged) == ("completed", 1)
        await balance_is(caller, 99)

    async def test_before_its_first_byte_costs_nothing(self, served, upstream):
        """Case 16: after the upstream's headers, before anything was generated."""
        caller = await gateway.caller(flux=100)
        await gateway.places((upstream.base_url, 2))
        upstream.script(stream([b": wait\n\n"], then="hang"))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await served.post(PATH, BODY, caller.key)
        (row,) = await closed()

        assert (row.state, row.outcome, row.attempts) == ("voided", "client_gone", 1)
        assert (upstream.aborted, len(upstream.seen)) == (1, 1)
        await balance_is(caller, 100)

    async def test_from_a_plain_request_that_is_about_to_end_pays_for_it(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(fake.answer(after_s=0.9), fake.hang())
        body = {**BODY, "stream": False}

        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await served.post(PATH, body, caller.key)
        paid, lost = await closed(2)

        assert (paid.outcome, paid.flux_charged, paid.status) == ("completed", 1, 200)
        assert (lost.state, lost.outcome, lost.flux_charged) == ("voided", "client_gone", 0)
        assert upstream.aborted == 1
        await balance_is(caller, 99)

    async def test_is_told_in_a_line_of_its_own(self, served, upstream, caplog):
        caplog.set_level("INFO")
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("word")] * 3, then="hang"))

        async with opened(served, caller.key) as response:
            await response.content.readuntil(b"\n\n")
        await closed()

        (told,) = (r for r in caplog.records if r.getMessage() == "Chat completion ended")
        assert (told.outcome, told.flux) == ("client_gone", 1)

    async def test_with_the_request_half_sent_is_no_request(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        host, port = served.base_url.removeprefix("http://").split(":")
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {caller.key}\r\n"
            "content-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
        for cut in (0, 10, len(head) - 1, len(head)):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head[:cut].encode())
            await writer.drain()
            writer.transport.abort()
        await asyncio.sleep(0.1)

        assert (upstream.seen, await gateway.requests()) == ([], [])


class TestDatabaseAway:
    async def test_case_15_while_a_stream_settles_is_not_the_clients_business(
        self, served, upstream, monkeypatch
    ):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream(pause_s=0.05))
        monkeypatch.setattr(streaming, "LAST_FRAME_S", 0.2)
        tries = 0
        settle_batch = paid_requests._settle_batch

        async def cut(lent, rows):
            nonlocal tries
            tries += 1
            if tries <= 3:
                await kill_backend(lent)
            return await settle_batch(lent, rows)

        monkeypatch.setattr(paid_requests._settlements._lanes.get(), "_run", cut)

        response = await served.post(PATH, BODY, caller.key)

        assert (response.status, response.cut) == (200, False)
        assert response.body.endswith(DONE)
        (row,) = await closed()
        assert (row.state, row.flux_charged, tries) == ("settled", 1, 4)
        await balance_is(caller, 99)

    async def test_while_a_stream_is_marked_does_not_stop_it(self, served, upstream, monkeypatch):
        async def away(*_args, **_kwargs):
            raise psycopg.OperationalError("away")

        monkeypatch.setattr(paid_requests, "mark", away)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream())

        response = await served.post(PATH, BODY, caller.key)

        assert response.body.endswith(DONE)
        (row,) = await closed()
        assert row.flux_charged == 1

    async def test_before_the_hold_means_no_upstream_call(self, served, upstream, monkeypatch):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)

        async def away(*_args):
            raise PoolTimeout("no connection is free")

        monkeypatch.setattr(paid_requests._opens._lanes.get(), "_run", away)

        for streamed in (True, False):
            response = await served.post(PATH, {**BODY, "stream": streamed}, caller.key)

            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert upstream.seen == []


async def kill_backend(lent):
    """End the connection as a restart of PostgreSQL would."""
    pid = lent.info.backend_pid
    async with database.connection() as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [pid])
    await asyncio.sleep(0.02)


class TestCheckpoints:
    async def test_are_written_as_a_stream_goes_on(self, served, upstream, monkeypatch):
        monkeypatch.setattr(streaming, "CHECKPOINT_S", 0.1)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a")] * 8 + frames(), pause_s=0.05))

        async with opened(served, caller.key) as response:
            await response.content.readuntil(b"\n\n")
            await asyncio.sleep(0.3)
            (row,) = await gateway.requests()
            assert (row.state, row.first_byte_at is not None) == ("streaming", True)
            assert 1 <= row.checkpoint <= 8
            assert row.hold > 0
            await response.content.readuntil(DONE)
        (row,) = await closed()
        assert row.flux_charged == 1
