"""Streams through the whole application: bytes as they came, settled however they end."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import psycopg
import pytest
from psycopg_pool import PoolTimeout

from airi_server.kernel import database
from billing import requests as paid_requests
from llmrouter import owners, streaming, tree
from tests.factories import gateway
from tests.fakes import raw
from tests.fakes import upstream as fake
from tests.fakes.raw import RawUpstream
from tests.fakes.upstream import DONE, chunk, frames, stream, usage_chunk

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
WANTS_USAGE = {**BODY, "stream_options": {"include_usage": True}}
PROMPT = len(json.dumps(BODY)) // 4
QUICK = tree.Defaults(per_attempt_timeout_ms=500, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


async def closed(count=1):
    """Return the rows once `count` of them have ended."""
    async with asyncio.timeout(5):
        while True:
            rows = await gateway.requests()
            if len(rows) == count and all(row.settled_at for row in rows):
                return rows
            await asyncio.sleep(0.02)


async def balance_is(caller, balance):
    account = await gateway.account(caller.user_id)
    assert (account.balance, account.held) == (balance, 0)
    debits = await gateway.debits(caller.user_id)
    assert len({debit.request_id for debit in debits}) == len(debits)


def interruption(body: bytes):
    """Return the error object of the last frame."""
    last = body.rstrip().split(b"\n\n")[-1]
    return orjson.loads(last.removeprefix(b"data: "))["error"]


class TestWholeStream:
    async def test_case_11_bytes_are_the_upstreams_and_cost_what_it_reports(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        parts = frames("Hel", "lo", "ä" * 500, use=(300, 700))
        upstream.script(stream(parts))

        asked = await served.post(PATH, WANTS_USAGE, caller.key)
        plain = await served.post(PATH, BODY, caller.key)

        assert (asked.status, asked.body, asked.cut) == (200, b"".join(parts), False)
        assert plain.body == b"".join(parts).replace(usage_chunk(300, 700), b"")
        rows = await closed(2)
        assert [(r.state, r.outcome, r.flux_charged) for r in rows] == [
            ("settled", "completed", 1)
        ] * 2
        assert (rows[0].prompt_tokens, rows[0].completion_tokens) == (300, 700)
        assert rows[0].first_byte_at is not None
        assert str(rows[0].id) == asked.headers["x-request-id"]
        await balance_is(caller, 98)

    async def test_is_the_same_whatever_the_upstream_makes_of_its_bytes(self, served):
        """CRLF, comments, named events, data over lines, one byte at a time."""
        caller = await gateway.caller(flux=100)
        head, tail = chunk("x").strip()[6:].split(b",", 1)
        odd = b": note\n\nevent: m\nid: 1\ndata: " + head + b",\ndata: " + tail + b"\n\n"
        lf = odd + chunk("y") + chunk("", finish="stop") + usage_chunk(300, 700) + DONE
        crlf = lf.replace(b"\n", b"\r\n")
        for whole in (lf, crlf):
            for parts in ([whole], [bytes([byte]) for byte in whole]):
                sent = [raw.piece(part) for part in parts] + [raw.piece(b"")]
                pause_s = 0.0 if len(parts) == 1 else 0.0002
                async with RawUpstream(raw.says(raw.stream_head(), *sent, pause_s=pause_s)) as made:
                    await gateway.route(made.base_url)
                    response = await served.post(PATH, WANTS_USAGE, caller.key)
                assert response.body == whole
        rows = await closed(4)
        assert {(r.prompt_tokens, r.completion_tokens, r.flux_charged) for r in rows} == {
            (300, 700, 1)
        }

    async def test_passes_a_ten_megabyte_line(self, served):
        caller = await gateway.caller(flux=10_000)
        line = [b'data: {"choices":[{"delta":{"content":"', *[b"x" * 65_536] * 160, b'"}}]}\n\n']
        parts = [*line, chunk("", finish="stop"), usage_chunk(5, 5), DONE]
        plays = raw.says(raw.stream_head(), *[raw.piece(p) for p in parts], raw.piece(b""))
        async with RawUpstream(plays) as made:
            await gateway.route(made.base_url)
            response = await served.post(PATH, BODY, caller.key)

        assert len(response.body) == sum(map(len, parts)) - len(usage_chunk(5, 5))
        (row,) = await closed()
        assert row.flux_charged == 1

    async def test_gives_the_first_frame_at_once(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a")], then="hang"))

        async with asyncio.timeout(2), opened(served, caller.key) as response:
            assert await response.content.readany() == chunk("a")
        await closed()

    async def test_keeps_no_more_than_a_bound_for_a_client_that_does_not_read(self, served):
        caller = await gateway.caller()
        sent = 0

        async def endless(_reader, writer):
            nonlocal sent
            writer.write(raw.stream_head())
            while not writer.is_closing():
                writer.write(raw.piece(chunk("z" * 16_000)))
                await writer.drain()
                sent += 16_000

        async with RawUpstream(endless) as made:
            await gateway.route(made.base_url)
            async with opened(served, caller.key) as response:
                await asyncio.sleep(1.0)
                stuck = sent
                await asyncio.sleep(0.5)
                assert sent == stuck  # the rest of it waits in the sockets' own buffers
                running: Any
                (running,) = owners._running
                assert running.relay._size < 2**20
                response.close()
            (row,) = await closed()
        assert row.outcome == "client_gone"


@asynccontextmanager
async def opened(served, key, body=BODY):
    """Begin a stream and leave it to the test to read; closing hangs up."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        url = served.base_url + PATH
        async with session.post(url, json=body, headers=served.headers(key)) as response:
            yield response
            response.close()


class TestBrokenStream:
    async def test_by_reset_end_of_file_or_silence_costs_what_was_delivered(self, served, upstream):
        """Case 14 (mid-stream): the client sees an error frame, no end, and a cut connection."""
        caller = await gateway.caller(flux=100)
        delivered = [chunk("word" * 200), chunk("word" * 300)]
        breaks = {
            "reset": (stream(delivered, then="reset"), "upstream_broken"),
            "clean end": (stream(delivered), "upstream_broken"),
            "half a frame": (stream([*delivered, b'data: {"cho']), "upstream_broken"),
            "silence": (stream(delivered, then="hang"), "upstream_stalled"),
        }
        for number, (step, outcome) in enumerate(breaks.values(), start=1):
            await gateway.places((upstream.base_url, 1), defaults=QUICK, timeout_ms=400 + number)
            upstream.script(step)

            response = await served.post(PATH, BODY, caller.key)

            assert (response.status, response.cut) == (200, True)
            assert response.body.startswith(b"".join(delivered))
            assert b"[DONE]" not in response.body
            assert interruption(response.body)["code"] == "BAD_GATEWAY"
            row = (await closed(number))[-1]
            assert (row.state, row.outcome, row.usage_source) == ("settled", outcome, "estimated")
            assert (row.prompt_tokens, row.completion_tokens) == (PROMPT, 500)
            assert row.flux_charged == 1  # not the flat price: the answer is not whole
        await balance_is(caller, 96)

    async def test_by_an_error_frame_passes_that_frame_on(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        failed = b'data: {"error":{"message":"overloaded","code":502}}\n\n'
        parts = [chunk("a"), failed]
        upstream.script(stream(parts, pause_s=0.05), stream([*parts, DONE], pause_s=0.05))

        for number in (1, 2):
            response = await served.post(PATH, BODY, caller.key)

            assert (response.body, response.cut) == (chunk("a") + failed, True)
            row = (await closed(number))[-1]
            assert (row.outcome, row.flux_charged) == ("upstream_error", 1)

    async def test_takes_reported_usage_when_there_was_some(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a", usage=fake.usage(2_000, 900))], then="reset"))

        await served.post(PATH, BODY, caller.key)

        (row,) = await closed()
        assert (row.usage_source, row.flux_charged) == ("reported", 3)

    async def test_case_14_before_its_first_chunk_costs_nothing(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([], then="reset"))

        response = await served.post(PATH, BODY, caller.key)

        assert (response.status, response.cut) == (502, False)
        (row,) = await closed()
        assert (row.state, row.flux_charged) == ("voided", 0)
        await balance_is(caller, 100)

    async def test_is_whole_after_its_finish_reason(self, served, upstream):
        """Only the usage report is lost: the answer is complete and costs the flat price."""
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a"), chunk("", finish="stop")], then="reset"))

        response = await served.post(PATH, BODY, caller.key)

        assert not response.cut
        (row,) = await closed()
        assert (row.outcome, row.flux_charged) == ("completed", 5)

    async def test_ends_at_the_total_deadline(self, served, upstream, monkeypatch):
        from llmrouter import gateway as domain

        monkeypatch.setattr(domain, "STREAM_TOTAL_S", 0.5)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a")] * 100, pause_s=0.05))

        response = await served.post(PATH, BODY, caller.key)

        assert response.cut
        (row,) = await closed()
        assert row.outcome == "deadline"
        assert 5 <= row.completion_tokens <= 12


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

        assert asyncio.get_running_loop().time() - left_at < 1.8
        assert upstream.aborted == 1
        assert (row.outcome, row.usage_source) == ("client_gone", "estimated")
        assert (row.prompt_tokens, row.completion_tokens) == (PROMPT, 50)
        assert row.flux_charged == 1
        await balance_is(caller, 99)

    async def test_just_before_the_usage_report_pays_what_is_reported(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        first, rest = frames("a")[:1], frames("a", use=(3_000, 1_000))[1:]

        async def step(request):
            return await stream([*first, *[b": wait\n\n"] * 8, *rest], pause_s=0.1)(request)

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
