"""Usage as upstreams report it: one normal form, gaps estimated alone, nothing beyond reason."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import MAX_TOKENS, TokenSource, Usage
from llmrouter.gateway import usage
from llmrouter.gateway.usage import Asked, Reports, TokenCounts
from tests.factories import gateway
from tests.fakes import upstream as fake

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
DEEP = orjson.loads(b"[" * 600 + b"]" * 600)
NONSENSE = {
    "missing": None,
    "null_fields": {"prompt_tokens": None, "completion_tokens": None},
    "negative": {"prompt_tokens": -5, "completion_tokens": -10},
    "nan_text": {"prompt_tokens": "NaN", "completion_tokens": "NaN"},
    "fraction": {"prompt_tokens": 1.5, "completion_tokens": 2.5},
    "bool": {"prompt_tokens": True, "completion_tokens": True},
    "huge": {"prompt_tokens": 10**18, "completion_tokens": 10**18},
    "long_digits": {"prompt_tokens": "9" * 5_000, "completion_tokens": "-1"},
    "beyond_64_bits": {"prompt_tokens": 2**65, "completion_tokens": 2**64},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "list": [1, 2],
    "word": "many",
    "deep": {"prompt_tokens": DEEP, "completion_tokens": DEEP},
}
ASKED = Asked(prompt_estimate=30, prompt_most=5_000, longest=1_000)


def reports(*answers):
    found = Reports()
    for answer in answers:
        found.add(answer)
    return found


def said(**report):
    return reports({"usage": report})


def reading_of(found, generated=9, counted=None):
    return usage.read(
        found, ASKED, has_text=generated > 0, generated=lambda: generated, counted=counted
    )


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


class TestNormalForm:
    """The same usage, whoever reports it: (input, cached, written, output, reasoning)."""

    @pytest.mark.parametrize(
        ("report", "normal"),
        [
            # OpenAI: reasoning inside, cached inside.
            ({"prompt_tokens": 32, "completion_tokens": 109, "total_tokens": 141,
              "completion_tokens_details": {"reasoning_tokens": 100}}, (32, 0, 0, 109, 100)),
            ({"prompt_tokens": 1000, "completion_tokens": 10,
              "prompt_tokens_details": {"cached_tokens": 900}}, (1000, 900, 0, 10, 0)),
            ({"prompt_tokens": 1000, "completion_tokens": 10,
              "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300}},
             (1000, 600, 300, 10, 0)),
            # xAI: reasoning beside, and in the total.
            ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 141,
              "completion_tokens_details": {"reasoning_tokens": 100}}, (32, 0, 0, 109, 100)),
            # Gemini: thoughts only in the total.
            ({"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 1021},
             (9, 0, 0, 1012, 0)),
            # DeepSeek, Moonshot.
            ({"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010,
              "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100},
             (1000, 900, 0, 10, 0)),
            ({"prompt_tokens": 1000, "completion_tokens": 10, "cached_tokens": 900},
             (1000, 900, 0, 10, 0)),
            # Anthropic: read and written beside the input.
            ({"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 600,
              "cache_creation_input_tokens": 300}, (1000, 600, 300, 10, 0)),
            ({"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50},
             (150, 50, 0, 10, 0)),
            # The same through a gateway that has added them up.
            ({"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010,
              "cache_read_input_tokens": 600, "cache_creation_input_tokens": 300},
             (1000, 600, 300, 10, 0)),
            # Beside the prompt though it is called otherwise: the total says so.
            ({"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1510,
              "cached_tokens": 500}, (1500, 500, 0, 10, 0)),
            # Names, and numbers as they are written.
            ({"input_tokens": 1000, "output_tokens": 500}, (1000, 0, 0, 500, 0)),
            ({"prompt_tokens": 190.0, "completion_tokens": 130.0}, (190, 0, 0, 130, 0)),
            ({"prompt_tokens": "190", "completion_tokens": "130"}, (190, 0, 0, 130, 0)),
            # Derived from the total.
            ({"prompt_tokens": 1900, "total_tokens": 1900}, (1900, 0, 0, 0, 0)),
            ({"prompt_tokens": 1900, "completion_tokens": 0, "total_tokens": 1900},
             (1900, 0, 0, 0, 0)),
            ({"prompt_tokens": 1900, "completion_tokens": None, "total_tokens": 2000},
             (1900, 0, 0, 100, 0)),
            ({"completion_tokens": 100, "total_tokens": 2000}, (1900, 0, 0, 100, 0)),
            # Zeros beside text are no counts.
            ({"prompt_tokens": 1900, "completion_tokens": 0}, (1900, 0, 0, None, 0)),
            ({"prompt_tokens": 0, "completion_tokens": 7}, (None, 0, 0, 7, 0)),
            # A part is no larger than its whole.
            ({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11,
              "cached_tokens": 99}, (10, 10, 0, 1, 0)),
        ],
    )  # fmt: skip
    def test_is_the_same_in_every_dialect(self, report, normal):
        counts = said(**report).counts(has_text=True)

        found = (counts.input, counts.cached, counts.written, counts.output, counts.reasoning)
        assert found == normal

    @pytest.mark.parametrize("report", NONSENSE.values(), ids=NONSENSE.keys())
    def test_nonsense_counts_as_missing(self, report):
        assert reports({"usage": report}).counts(has_text=True) == TokenCounts()

    def test_largest_count_is_believed(self):
        assert said(prompt_tokens=MAX_TOKENS).counts(has_text=True).input == MAX_TOKENS
        assert said(prompt_tokens=MAX_TOKENS + 1).counts(has_text=True).input is None

    @pytest.mark.parametrize("details", [None, "many", 7, [], {}, {"cached_tokens": True}])
    def test_details_that_are_none_are_no_details(self, details):
        counts = said(prompt_tokens=10, completion_tokens=1, prompt_tokens_details=details)

        assert counts.counts(has_text=True) == TokenCounts(input=10, output=1)


class TestPlaces:
    def test_reports_are_found_wherever_they_stand(self):
        report = fake.usage(19, 130)
        in_choice = {"choices": [{"index": 0, "usage": report}]}

        for answer in ({"usage": report}, {"x_groq": {"usage": report}}, in_choice):
            counts = reports(answer).counts(has_text=True)
            assert (counts.input, counts.output) == (19, 130)

    def test_outputs_of_choices_add_up(self):
        answer = {"choices": [{"index": i, "usage": fake.usage(19, 10 + i)} for i in range(3)]}

        counts = reports(answer).counts(has_text=True)

        assert (counts.input, counts.output) == (19, 33)

    @pytest.mark.parametrize("of_choice", [{}, {"completion_tokens": 1}, {"x": 1}])
    @pytest.mark.parametrize("is_last", [False, True])
    def test_that_of_the_whole_answer_counts_wherever_it_stands(self, of_choice, is_last):
        whole = {"usage": fake.usage(1_000, 5_000)}
        part = {"choices": [{"index": 0, "usage": of_choice}]}

        found = reports(*((part, whole) if is_last else (whole, part)))

        counts = found.counts(has_text=True)
        assert (counts.input, counts.output) == (1_000, 5_000)
        assert found.seen == whole["usage"]
        together = reports({**whole, **part})
        assert together.counts(has_text=True) == counts

    @pytest.mark.parametrize("odd", [None, 7, "x", [], {"usage": 7}, [7], {"x": {}}])
    def test_odd_shapes_report_nothing(self, odd):
        answer = {"usage": odd, "x_groq": odd, "choices": odd}

        assert reports(answer).counts(has_text=True) == TokenCounts()

    @given(st.permutations([(1000, 1), (None, 500), (1000, 30)]))
    def test_halves_and_running_counts_are_merged_in_any_order(self, halves):
        chunks = [
            {"usage": {"prompt_tokens": prompt, "completion_tokens": output}}
            for prompt, output in halves
        ]

        counts = reports(*chunks).counts(has_text=True)

        assert (counts.input, counts.output) == (1000, 500)

    def test_what_is_derived_is_derived_once(self):
        """Maxima of derived values would take a running total for reasoning beside the answer."""
        chunks = [
            {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}},
            {"usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}},
        ]

        assert reports(*chunks).counts(has_text=True).output == 50


class TestRead:
    def test_a_whole_report_is_charged_as_it_stands(self):
        reading = reading_of(said(**fake.usage(120, 40)))

        assert reading == usage.Reading(Usage(120, 40))

    @pytest.mark.parametrize(
        ("report", "generated", "read"),
        [
            ({}, 9, Usage(30, 3, source=TokenSource.ESTIMATED)),
            ({"prompt_tokens": 120}, 9, Usage(120, 3, source=TokenSource.COMPLETED)),
            ({"completion_tokens": 40}, 9, Usage(30, 40, source=TokenSource.COMPLETED)),
            ({"total_tokens": 160}, 9, Usage(157, 3, source=TokenSource.COMPLETED)),
            ({"prompt_tokens": 120, "completion_tokens": 0}, 0,
             Usage(120, 0, source=TokenSource.NONE)),
            ({}, 0, Usage(0, 0, source=TokenSource.NONE)),
            ({"completion_tokens": 40, "prompt_tokens": 9}, 0, Usage(9, 40)),
        ],
    )  # fmt: skip
    def test_a_gap_is_estimated_alone(self, report, generated, read):
        reading = reading_of(said(**report), generated)

        assert reading.usage == read

    @pytest.mark.parametrize(
        ("report", "bounded"),
        [
            ({"prompt_tokens": 10, "completion_tokens": 99_942}, (10, 1_114)),
            ({"prompt_tokens": 10, "completion_tokens": 1_114}, None),
            ({"prompt_tokens": 5_001, "completion_tokens": 10}, (5_000, 10)),
            # Reasoning beside the length may be four times as long.
            ({"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 99_999}, (10, 5_024)),
            ({"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 4_000}, None),
        ],
    )
    def test_a_report_beyond_reason_is_bounded_and_kept(self, report, bounded):
        reading = reading_of(said(**report))

        if bounded is None:
            assert (reading.usage.source, reading.raw) == (TokenSource.REPORTED, None)
        else:
            assert reading.usage == Usage(bounded[0], bounded[1], source=TokenSource.BOUNDED)
            assert reading.raw == report

    def test_cached_tokens_are_cut_with_their_prompt(self):
        report = said(prompt_tokens=9_000, completion_tokens=5, cached_tokens=8_000)

        reading = reading_of(report)

        assert reading.usage == Usage(5_000, 5, 5_000, TokenSource.BOUNDED)

    def test_a_tokenizer_is_asked_before_an_estimate(self):
        counted = Usage(31, 4, source=TokenSource.COUNTED)

        nothing = reading_of(said(), counted=counted)
        half = reading_of(said(prompt_tokens=120), counted=counted)

        assert nothing.usage == counted
        assert half.usage == Usage(120, 4, source=TokenSource.COMPLETED)

    @given(
        st.dictionaries(
            st.sampled_from(sorted(usage._NORMAL)),
            st.one_of(st.integers(-5, 10**9), st.floats(), st.text(max_size=4), st.none()),
        ),
        st.integers(0, 5_000),
    )
    def test_whatever_is_reported_the_charge_is_possible(self, report, generated):
        used = reading_of(said(**report), generated).usage

        assert 0 <= used.cached <= used.prompt <= max(ASKED.prompt_most, ASKED.prompt_estimate)
        assert 0 <= used.completion <= 5_024
        assert generated or used.completion or used.source is TokenSource.NONE


@pytest.mark.asyncio
class TestThroughTheGateway:
    async def test_nonsense_is_never_an_error_and_costs_the_flat_price(self, served, upstream):
        """Cases 6 and 12: estimated, with the flat price as the floor, plain and streamed."""
        caller = await gateway.caller(flux=10_000)
        await gateway.route(upstream.base_url)
        found = list(NONSENSE.values())
        plain = [fake.answer(fake.completion("Hello there.", use=report)) for report in found]
        streams = [
            fake.stream(
                [fake.chunk("Hello"), fake.chunk("", finish="stop", usage=report), fake.DONE]
            )
            for report in found
        ]
        upstream.script(*plain, *streams)

        answers = [await served.post(PATH, BODY, caller.key) for _ in found]
        streamed = [await served.post(PATH, {**BODY, "stream": True}, caller.key) for _ in found]

        assert {answer.status for answer in answers + streamed} == {200}
        assert answers[0].body == orjson.dumps(fake.completion("Hello there.", use=None))
        assert all(answer.body.endswith(fake.DONE) and not answer.cut for answer in streamed)
        rows = await gateway.requests()
        assert [(r.flux_charged, r.usage_source, r.outcome) for r in rows] == [
            (5, "estimated", "completed")
        ] * (2 * len(found))
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
        """Case 12: the same plain and streamed, in one frame or in thousands."""
        caller = await gateway.caller(flux=10_000)
        await gateway.route(upstream.base_url)
        words = ["word "] * 40_000
        upstream.script(
            fake.answer(fake.completion("".join(words), use=None)),
            fake.stream([fake.chunk("".join(words)), fake.chunk("", finish="stop"), fake.DONE]),
            fake.stream(
                [b"".join(map(fake.chunk, words)), fake.chunk("", finish="stop"), fake.DONE]
            ),
        )
        body = {**BODY, "max_tokens": 16_000}

        await served.post(PATH, body, caller.key)
        for _ in range(2):
            await served.post(PATH, {**body, "stream": True}, caller.key)

        rows = await gateway.requests()
        assert [(row.completion_tokens, row.flux_charged) for row in rows] == [(50_000, 51)] * 3

    async def test_an_answer_that_generated_nothing_is_free(self, served, upstream):
        """It is an answer, because it says why it ended; its key keeps it."""
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(fake.answer(fake.completion("", use=fake.usage(90, 0))))

        first = await served.post(PATH, BODY, caller.key, **{"Idempotency-Key": "k"})
        again = await served.post(PATH, BODY, caller.key, **{"Idempotency-Key": "k"})

        assert (first.status, first.headers["x-airi-flux-charged"]) == (200, "0")
        assert (again.status, again.body, len(upstream.seen)) == (200, first.body, 1)
        (row,) = await gateway.requests()
        assert (row.state, row.usage_source, row.prompt_tokens) == ("settled", "none", 90)
        assert (await gateway.account(caller.user_id)).balance == 100

    async def test_a_report_beyond_what_was_asked_for_takes_no_more_than_that(
        self, served, upstream
    ):
        caller = await gateway.caller(flux=100_000)
        await gateway.route(upstream.base_url)
        upstream.script(fake.answer(fake.completion(use=fake.usage(50_000_000, 50_000_000))))

        response = await served.post(PATH, {**BODY, "max_tokens": 20}, caller.key)

        (row,) = await gateway.requests()
        assert (row.usage_source, row.completion_tokens) == ("bounded", 85)
        assert row.reported == fake.usage(50_000_000, 50_000_000)
        assert int(response.headers["x-airi-flux-charged"]) < 10

    async def test_a_charge_above_the_hold_takes_what_is_free_and_records_the_rest(
        self, served, upstream
    ):
        """A partial debit: the request that was free beside another's hold stays untouched."""
        caller = await gateway.caller(flux=30)
        await gateway.option("FLUX_PER_1K_TOKENS", 20)
        await gateway.route(upstream.base_url)
        upstream.script(
            fake.answer(fake.completion(use=fake.usage(2_000, 20)), after_s=0.2),
            fake.answer(fake.completion(use=fake.usage(20, 20)), after_s=0.6),
        )
        body = {**BODY, "max_tokens": 20}

        first = asyncio.create_task(served.post(PATH, body, caller.key))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(served.post(PATH, body, caller.key))
        responses = [await first, await second]

        assert [response.status for response in responses] == [200, 200]
        row, other = await gateway.requests()
        assert (row.hold, row.flux_charged, row.unbilled) == (5, 25, 16)
        assert (other.flux_charged, other.unbilled) == (1, 0)
        entry, _ = await gateway.debits(caller.user_id)
        metadata = entry.metadata or {}
        assert (entry.amount, metadata["requestedAmount"], metadata["unbilled"]) == (
            25, 41, 16,
        )  # fmt: skip
        account = await gateway.account(caller.user_id)
        assert (account.balance, account.held) == (4, 0)


DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "cached_tokens": st.integers(-1, 2_000),
        "reasoning_tokens": st.integers(0, 9),
        "audio_tokens": st.integers(0, 9),
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": st.integers(-1, 2_000),
            "completion_tokens": st.integers(-1, 2_000),
            "total_tokens": st.integers(-1, 4_000),
            "prompt_tokens_details": st.none() | DETAILS,
            "completion_tokens_details": st.none() | DETAILS,
        },
    )
)
def test_the_short_way_for_ordinary_reports_reads_the_same(report):
    if type(report.get("prompt_tokens")) is int and type(report.get("completion_tokens")) is int:
        report = {**report, "total_tokens": report["prompt_tokens"] + report["completion_tokens"]}
    short = usage._ordinary(report)
    raw: dict[str, int] = {}
    usage._merge(raw, report)

    assert short is None or short == usage._derived(raw, has_text=True)
