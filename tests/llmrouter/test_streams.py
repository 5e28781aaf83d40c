"""Streams through the whole application: bytes as they came, settled however they end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmrouter.configuration import tree
from llmrouter.gateway import tasks
from tests.factories import gateway
from tests.fakes import raw
from tests.fakes import upstream as fake
from tests.fakes.raw import RawUpstream
from tests.fakes.upstream import DONE, chunk, frames, stream, usage_chunk
from tests.llmrouter.exchanges import balance_is, closed, interruption, opened

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
BODY = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
WANTS_USAGE = {**BODY, "stream_options": {"include_usage": True}}
PROMPT = len(json.dumps(BODY)) // 4
QUICK = tree.Defaults(per_attempt_timeout_ms=500, idle_timeout_ms=300, full_chain_timeout_ms=3_000)


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
                # A comment before the beginning only says that the upstream lives.
                note = whole.index(b"event")
                assert response.body == whole[note:]
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
                (running,) = tasks._running
                assert running.relay._size < 2**20
                response.close()
            (row,) = await closed()
        assert row.outcome == "client_gone"


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

    async def test_by_an_error_frame_ends_with_ours_and_its_sanitized_message(
        self, served, upstream
    ):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        failed = b'data: {"error":{"message":"overloaded: http://10.0.0.7/ sk-proj-1234567"}}\n\n'
        parts = [chunk("a"), failed]
        upstream.script(stream(parts, pause_s=0.05), stream([*parts, DONE], pause_s=0.05))

        for number in (1, 2):
            response = await served.post(PATH, BODY, caller.key)

            assert response.cut
            assert response.body.startswith(chunk("a") + b"data: ")
            assert response.body.count(b"data: ") == 2
            error = interruption(response.body)
            assert (error["code"], error["message"]) == ("BAD_GATEWAY", "overloaded: … …")
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
        from llmrouter.completions import operation as domain

        monkeypatch.setattr(domain, "STREAM_TOTAL_S", 0.5)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(stream([chunk("a")] * 100, pause_s=0.05))

        response = await served.post(PATH, BODY, caller.key)

        assert response.cut
        (row,) = await closed()
        assert row.outcome == "deadline"
        assert 2 <= row.completion_tokens <= 3
