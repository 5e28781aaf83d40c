"""Answers without a usage report, counted with the tokenizer of their model."""

from __future__ import annotations

import random
import string
import time

import pytest

from billing.pricing import TokenSource
from llmrouter.gateway import tokenizers
from tests.factories import gateway
from tests.fakes.upstream import answer, chunk, completion, frames, stream
from tests.llmrouter.exchanges import closed

PATH = "/v1/chat/completions"
PROMPT = "How are you today, my friend?"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
TEXT = "Thank you, I am fine; and 東京 is a city."
NAME = "o200k_base"
SIZE = 150_000


def counted(prompt="Be brief.\n" + PROMPT, answered=TEXT, messages=2):
    asked = tokenizers.count(NAME, prompt) + tokenizers.PER_MESSAGE * (messages + 1)
    return asked, tokenizers.count(NAME, answered)


@pytest.mark.asyncio
class TestExchange:
    async def test_is_counted_when_nobody_reports(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, tokenizer=NAME)

        for number, streamed in enumerate((False, True), start=1):
            parts = frames(TEXT[:7], TEXT[7:20], TEXT[20:], use=None)
            upstream.script(stream(parts) if streamed else answer(completion(TEXT, use=None)))
            body = {"messages": MESSAGES, "stream": streamed}
            assert (await served.post(PATH, body, caller.key)).status == 200

            row = (await closed(number))[-1]
            assert (row.outcome, row.usage_source) == ("completed", TokenSource.COUNTED)
            assert (row.prompt_tokens, row.completion_tokens) == counted()
            assert row.flux_charged == 1  # not the flat price of a guess

    async def test_that_was_cut_off_is_counted_as_delivered(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, tokenizer=NAME)
        upstream.script(stream([chunk(TEXT)], then="reset"))

        await served.post(PATH, {"messages": MESSAGES, "stream": True}, caller.key)

        (row,) = await closed()
        assert (row.outcome, row.usage_source) == ("upstream_broken", TokenSource.COUNTED)
        assert (row.prompt_tokens, row.completion_tokens) == counted()

    async def test_a_report_is_believed(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, tokenizer=NAME)

        await served.post(PATH, {"messages": MESSAGES}, caller.key)

        (row,) = await closed()
        assert (row.usage_source, row.prompt_tokens) == (TokenSource.REPORTED, 120)

    async def test_too_long_a_text_is_estimated(self, served, upstream, monkeypatch):
        monkeypatch.setattr(tokenizers, "MAX_CHARACTERS", 40)
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url, tokenizer=NAME)
        for number, streamed in enumerate((False, True), start=1):
            text = frames(TEXT, use=None)
            upstream.script(stream(text) if streamed else answer(completion(TEXT, use=None)))
            await served.post(PATH, {"messages": MESSAGES, "stream": streamed}, caller.key)

            row = (await closed(number))[-1]
            assert row.usage_source == TokenSource.ESTIMATED

    async def test_tools_and_parts_are_counted(self):
        call = {"function": {"name": "look_up", "arguments": '{"city": "東京"}'}}
        found = await tokenizers.count_exchange(
            NAME,
            messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}, None, 7]}],
            answer=[{"role": "assistant", "content": None, "tool_calls": [call]}, None, "x"],
        )

        assert found is not None
        assert (found.prompt, found.completion) == counted(
            PROMPT, 'look_up{"city": "東京"}', messages=1
        )


def cost(text):
    """CPU seconds of counting `text`."""
    began = time.thread_time()
    tokenizers.count(NAME, text)
    return time.thread_time() - began


LETTERS = random.Random(7).choices(string.ascii_letters + string.digits, k=SIZE)


class TestLongRuns:
    @pytest.mark.parametrize(
        "text",
        ["a" * SIZE, "".join(LETTERS), "é" * SIZE, "漢" * SIZE, "🙂" * SIZE, " " * SIZE,
         "\n" * SIZE, "=" * SIZE, "ab," * (SIZE // 3)],
        ids=["a", "letters", "é", "漢", "emoji", "spaces", "newlines", "signs", "pairs"],
    )  # fmt: skip
    def test_cost_no_more_a_character_than_short_ones(self, text):
        tokenizers.count(NAME, "the tables are read once")
        part = text[: SIZE // 16]

        whole_s, part_s = (min(cost(each) for _ in range(3)) for each in (text, part))

        assert whole_s < 16 * 4 * part_s  # a quadratic count costs 256 times as much
        assert 0 < tokenizers.count(NAME, text) <= 4 * len(text)

    def test_a_part_costs_a_token_at_most(self):
        whole = "word " * 100
        assert tokenizers.count(NAME, whole) == 101
