"""Usage as upstreams report it: what makes sense counts, everything else is estimated."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from billing.pricing import MAX_TOKENS, Source, Usage
from llmrouter.completions import usage
from tests.factories import gateway
from tests.fakes import upstream as fake

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
DEEP = orjson.loads(b"[" * 600 + b"]" * 600)
NONSENSE = {
    "missing": None,
    "null_fields": {"prompt_tokens": None, "completion_tokens": None},
    "prompt_only": {"prompt_tokens": 5000},
    "negative": {"prompt_tokens": -5, "completion_tokens": 10},
    "nan_text": {"prompt_tokens": "NaN", "completion_tokens": "NaN"},
    "text": {"prompt_tokens": "90000", "completion_tokens": "5"},
    "fraction": {"prompt_tokens": 1.5, "completion_tokens": 2.0},
    "bool": {"prompt_tokens": True, "completion_tokens": True},
    "huge": {"prompt_tokens": 10**18, "completion_tokens": 1},
    "beyond_64_bits": {"prompt_tokens": 10, "completion_tokens": 2**64},
    "list": [1, 2],
    "word": "many",
    "deep": {"prompt_tokens": DEEP, "completion_tokens": 1},
}


class TestDecode:
    @pytest.mark.parametrize(
        ("text", "value"),
        [(b'{"a":1}', {"a": 1}), (b"1e400", float("inf")), (b'"\\ud800"', "\ud800")],
    )
    def test_reads_what_clients_read(self, text, value):
        assert usage.decode(text) == value

    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b"\xff", b"[" * 100_000, b"1" * 9_999],
    )
    def test_refuses_what_is_no_json(self, text):
        with pytest.raises(ValueError):  # noqa: PT011  any kind of it
            usage.decode(text)


class TestReported:
    @pytest.mark.parametrize("report", NONSENSE.values(), ids=NONSENSE.keys())
    def test_nonsense_counts_as_missing(self, report):
        assert usage.reported(report) is None

    def test_zero_is_a_count(self):
        assert usage.reported({"prompt_tokens": 0, "completion_tokens": 0}) == Usage(0, 0)

    def test_largest_count_is_believed(self):
        report = {"prompt_tokens": MAX_TOKENS, "completion_tokens": 0}

        assert usage.reported(report) == Usage(MAX_TOKENS, 0)
        assert usage.reported({**report, "prompt_tokens": MAX_TOKENS + 1}) is None

    @pytest.mark.parametrize(
        ("details", "cached"),
        [
            ({"cached_tokens": 7}, 7),
            ({"cached_tokens": 11}, 0),
            ({"cached_tokens": True}, 0),
            ({"cached_tokens": -1}, 0),
            ({"cached_tokens": None}, 0),
            ({}, 0),
            (None, 0),
            ("many", 0),
        ],
    )
    def test_cached_tokens_are_among_the_prompt_or_not_believed(self, details, cached):
        report = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": details}

        assert usage.reported(report) == Usage(10, 1, cached)


class TestTextBytes:
    def test_counts_what_was_generated(self):
        choices = [
            {"message": {"content": "äöü", "refusal": "no", "reasoning_content": "hm"}},
            {"delta": {"content": "abc"}},
            {"message": {"content": None, "tool_calls": [{"x": 1}]}},
        ]

        assert usage.text_bytes_of(choices) == 6 + 2 + 2 + 3 + len(b'[{"x":1}]') // 2

    @pytest.mark.parametrize(
        "choices",
        [None, "text", 7, [{"message": {"content": 7}}], {}, [], [None], ["a"],
         [{"message": "text"}], [{"message": {"tool_calls": DEEP}}]],
    )  # fmt: skip
    def test_other_shapes_count_nothing(self, choices):
        assert usage.text_bytes_of(choices) == 0


def test_an_estimate_takes_four_bytes_for_a_token_and_rounds_up():
    assert usage.estimated(prompt_estimate=3, text_bytes=9) == Usage(3, 3, source=Source.ESTIMATED)


@pytest.mark.asyncio
class TestThroughTheGateway:
    async def test_nonsense_is_never_an_error_and_costs_the_flat_price(self, served, upstream):
        """Cases 6 and 12: estimated, with the flat price as the floor, plain and streamed."""
        caller = await gateway.caller(flux=10_000)
        await gateway.route(upstream.base_url)
        reports = list(NONSENSE.values())
        plain = [fake.answer(fake.completion("Hello there.", use=report)) for report in reports]
        streams = [
            fake.stream(
                [fake.chunk("Hello"), fake.chunk("", finish="stop", usage=report), fake.DONE]
            )
            for report in reports
        ]
        upstream.script(*plain, *streams)

        answers = [await served.post(PATH, BODY, caller.key) for _ in reports]
        streamed = [await served.post(PATH, {**BODY, "stream": True}, caller.key) for _ in reports]

        assert {answer.status for answer in answers + streamed} == {200}
        assert answers[0].body == orjson.dumps(fake.completion("Hello there.", use=None))
        assert all(answer.body.endswith(fake.DONE) and not answer.cut for answer in streamed)
        rows = await gateway.requests()
        assert [(r.flux_charged, r.usage_source, r.outcome) for r in rows] == [
            (5, "estimated", "completed")
        ] * (2 * len(reports))
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (10_000 - 5 * len(rows), 0)

    async def test_numbers_beyond_a_double_and_half_surrogates_are_served(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        odd = rb'{"choices":[{"message":{"content":"\ud83d"}}],"usage":{"prompt_tokens":1e400}}'
        upstream.script(fake.answer(odd), fake.stream([b"data: " + odd + b"\n\n", fake.DONE]))

        plain = await served.post(PATH, BODY, caller.key)
        streamed = await served.post(PATH, {**BODY, "stream": True}, caller.key)

        assert (plain.status, plain.body) == (200, odd)
        assert (streamed.status, streamed.body) == (200, b"data: " + odd + b"\n\n" + fake.DONE)
        assert [row.flux_charged for row in await gateway.requests()] == [5, 5]

    async def test_a_long_answer_without_usage_costs_what_it_probably_took(self, served, upstream):
        """Case 12: the estimate counts where it is above the flat price."""
        caller = await gateway.caller(flux=10_000)
        await gateway.route(upstream.base_url)
        long = "word " * 8_000
        upstream.script(
            fake.answer(fake.completion(long, use=None)),
            fake.stream([fake.chunk(long), fake.chunk("", finish="stop"), fake.DONE]),
        )
        body = {**BODY, "max_tokens": 16_000}

        await served.post(PATH, body, caller.key)
        await served.post(PATH, {**body, "stream": True}, caller.key)

        for row in await gateway.requests():
            assert (row.completion_tokens, row.flux_charged) == (10_000, 11)

    async def test_an_explicit_zero_is_honored(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(fake.answer(fake.completion(use=fake.usage(0, 0))))

        response = await served.post(PATH, BODY, caller.key)

        assert response.headers["x-airi-flux-charged"] == "1"
        (row,) = await gateway.requests()
        assert (row.usage_source, row.prompt_tokens, row.completion_tokens) == ("reported", 0, 0)

    async def test_a_charge_above_the_hold_takes_what_is_free_and_records_the_rest(
        self, served, upstream
    ):
        """A partial debit: the request that was free beside another's hold stays untouched."""
        caller = await gateway.caller(flux=30)
        await gateway.route(upstream.base_url)
        upstream.script(
            fake.answer(fake.completion(use=fake.usage(40_000, 10_000)), after_s=0.2),
            fake.answer(after_s=0.6),
        )
        body = {**BODY, "max_tokens": 20}

        first = asyncio.create_task(served.post(PATH, body, caller.key))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(served.post(PATH, body, caller.key))
        responses = [await first, await second]

        assert [response.status for response in responses] == [200, 200]
        row, other = await gateway.requests()
        assert (row.hold, row.flux_charged, row.unbilled) == (5, 25, 25)
        assert (other.flux_charged, other.unbilled) == (1, 0)
        entry, _ = await gateway.debits(caller.user_id)
        metadata = entry.metadata or {}
        assert (entry.amount, metadata["requestedAmount"], metadata["unbilled"]) == (
            25, 50, 25,
        )  # fmt: skip
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (4, 0)
