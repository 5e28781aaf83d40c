"""Positive recognition: one function for failover and charge, whatever upstreams call it."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.completions import opening, recognition
from llmrouter.completions.opening import Opening, OpeningVerdict
from llmrouter.completions.recognition import Generated
from llmrouter.gateway.usage import NOTHING_SAID, TokenCounts
from tests.fakes.upstream import DONE, chunk, usage_chunk

DEEP = orjson.loads(b"[" * 600 + b"]" * 600)
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
COMMENT = b": OPENROUTER PROCESSING\n\n"


def frame(**fields):
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def delta(**fields):
    return frame(choices=[{"index": 0, "delta": fields, "finish_reason": None}])


BAD = {
    "comments, then the end": COMMENT * 2,
    "text": b"upstream connect error or disconnect/reset before headers",
    "NDJSON": chunk("a")[6:],
    "a list": b"[1]",
    "a page": b"<html>no</html>",
    "blank, then JSON": b' \r\n {"error": {"message": "no"}}',
    "a detail": frame(detail="Internal Server Error"),
    "details": frame(detail=[{"msg": "no"}]),
    "object: error": frame(object="error", message="context length exceeded", code=400),
    "code and msg": frame(code=20015, msg="no", data=None),
    "errors": frame(success=False, errors=[{"code": 5007}]),
    "event: error": b'event: error\ndata: {"code":529,"message":"Overloaded"}\n\n',
    "event: error, in text": b"event: error\ndata: upstream overloaded\n\n",
    "a role, then an error": ROLE + frame(error={"message": "no", "code": 502}),
    "a role, then an error without choices": ROLE + frame(error="no", choices=[]),
    "a role, then the end": ROLE,
    "a role, then the end marker": ROLE + DONE,
    "the end marker": DONE,
    "usage alone, then the end": usage_chunk() + DONE,
    "nothing, then the end": frame() + b"data: null\n\n" + frame(choices=[]) + DONE,
    "no JSON": b"data: hello\n\n",
    "a number": b"data: 7\n\n",
    "reason error": frame(choices=[{"delta": {"content": ""}, "finish_reason": "error"}]) + DONE,
}
GOOD = {
    "content": chunk("a"),
    "a role, then content": ROLE + chunk("a"),
    "comments, then content": COMMENT * 3 + chunk("a"),
    "a byte order mark": b"\xef\xbb\xbf" + chunk("a"),
    "carriage returns": ROLE.replace(b"\n", b"\r") + chunk("a").replace(b"\n", b"\r"),
    "both": ROLE.replace(b"\n", b"\r\n") + chunk("a").replace(b"\n", b"\r\n"),
    "a named event": b"event: message\nid: 1\n" + chunk("a"),
    "a reason alone": chunk("", finish="stop"),
    "parts": delta(content=[{"type": "text", "text": "a"}]),
    "reasoning": delta(reasoning="hm"),
    "reasoning_content": delta(reasoning_content="hm"),
    "reasoning details": delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
    "a refusal": delta(refusal="no"),
    "a tool": delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
    "an old function": delta(function_call={"name": "f", "arguments": ""}),
    "sound": delta(audio={"data": "QUJD"}),
    "a picture": delta(images=[{"type": "image_url", "image_url": {"url": "data:,"}}]),
    "legacy text": frame(choices=[{"text": "a"}]),
    "an error that is none": frame(error=None, choices=[{"delta": {"content": "a"}}]),
    "a code beside choices": frame(code=0, msg="", choices=[{"delta": {"content": "a"}}]),
}


def judge(stream: bytes, cuts=()) -> tuple[OpeningVerdict, bytes]:
    """Return the verdict, with the end of the stream as a bad one, and what was held."""
    places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    begun = Opening()
    verdict = OpeningVerdict.WAITING
    for start, end in itertools.pairwise(places):
        verdict = begun.feed(stream[start:end])
        if verdict is not OpeningVerdict.WAITING:
            return verdict, begun.held + stream[end:]
    return OpeningVerdict.BAD, begun.held


class TestOpening:
    @pytest.mark.parametrize("stream", BAD.values(), ids=BAD.keys())
    @given(cuts=st.lists(st.integers(0, 500), max_size=12))
    def test_what_generates_nothing_is_no_stream(self, stream, cuts):
        assert judge(stream, cuts)[0] is OpeningVerdict.BAD

    @pytest.mark.parametrize("stream", GOOD.values(), ids=GOOD.keys())
    @given(cuts=st.lists(st.integers(0, 500), max_size=12))
    def test_what_generates_has_begun_and_passes_as_it_came(self, stream, cuts):
        verdict, held = judge(stream + DONE, cuts)

        assert verdict is OpeningVerdict.BEGUN
        passed = stream.removeprefix(b"\xef\xbb\xbf")
        while passed.startswith(COMMENT):
            passed = passed.removeprefix(COMMENT)
        assert held == passed + DONE

    def test_a_long_first_frame_is_judged_by_its_beginning(self):
        long = b"x" * (opening.MAX_FRAME_BYTES + 1)

        for start, verdict in (
            (b'data: {"choices":[{"delta":{"content":"', OpeningVerdict.BEGUN),
            (b'data: {"error":{"message":"', OpeningVerdict.BAD),
            (b'data: {"error":null,"choices":[{"delta":{"content":"', OpeningVerdict.BAD),
            (b"data: ", OpeningVerdict.BAD),
        ):
            assert Opening().feed(start + long) is verdict

    def test_holds_no_more_than_a_bound(self):
        waiting = Opening()
        verdicts = [waiting.feed(ROLE) for _ in range(opening.MAX_HELD_BYTES // len(ROLE) + 2)]

        assert verdicts[0] is OpeningVerdict.WAITING
        assert verdicts[-1] is OpeningVerdict.BAD


class TestOfChoice:
    @pytest.mark.parametrize(
        ("choice", "size"),
        [
            ({"message": {"content": "äöü", "refusal": "no"}}, 8),
            ({"delta": {"content": "abc"}}, 3),
            ({"message": {"reasoning": "hmm", "reasoning_content": "hmm"}}, 3),
            ({"message": {"reasoning_details": [{"text": "a"}, {"summary": "b"}]}}, 2),
            ({"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}, 3),
            ({"message": {"tool_calls": [{"custom": {"name": "f", "input": "xy"}}]}}, 3),
            ({"message": {"audio": {"transcript": "hello", "data": "QUJD"}}}, 6),
            ({"text": "abc"}, 3),
        ],
    )
    def test_counts_what_was_generated(self, choice, size):
        assert recognition.of_choice(choice) == Generated(size, "")

    def test_sound_without_words_is_worth_its_seconds(self):
        """A minute of it at 16 kB/s: 1,920 tokens."""
        spoken = {"message": {"audio": {"data": "A" * (16_000 * 60 * 4 // 3)}}}

        assert recognition.of_choice(spoken).size == 1_920 * 4

    @pytest.mark.parametrize(
        "choices",
        [None, "text", 7, {}, [], [None], ["a"], [{"message": "text"}], [{"message": {}}],
         [{"message": {"content": 7, "tool_calls": DEEP, "reasoning": [], "audio": 7}}],
         [{"message": {"content": [None, 7, {"text": 7}], "images": "x"}}], [{"text": 7}],
         [{"finish_reason": 7}], [{"finish_reason": "error"}], [{"finish_reason": ""}]],
    )  # fmt: skip
    def test_other_shapes_are_nothing(self, choices):
        assert recognition.of_choices(choices) == recognition.NOTHING

    def test_a_reason_is_any_word_but_error(self):
        choices = [{"finish_reason": "error"}, {"finish_reason": "length"}]

        assert recognition.of_choices(choices).reason == "length"


class TestPlainAnswer:
    @pytest.mark.parametrize(
        "answer",
        [
            None, [], "x", 7, {}, {"choices": None}, {"choices": []}, {"choices": {}},
            {"object": "error", "message": "no"}, {"detail": "no"}, {"code": 1, "msg": "no"},
            {"error": {"message": "no"}, "choices": []},
            {"error": {"message": "no"}, "choices": [{"finish_reason": "stop"}]},
            {"choices": [{"message": {"content": ""}}]},
            {"choices": [{"message": {"content": None}, "finish_reason": "error"}]},
        ],
    )  # fmt: skip
    def test_is_none_without_anything_generated(self, answer):
        assert not recognition.is_answer(answer, NOTHING_SAID)

    @pytest.mark.parametrize(
        "answer",
        [
            {"choices": [{"message": {"content": "a"}}]},
            {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
            {"error": None, "choices": [{"message": {"content": "a"}}]},
            {"choices": [{}, {"message": {"tool_calls": [{"function": {"name": "f"}}]}}]},
        ],
    )
    def test_is_one_with_it_or_with_a_reason(self, answer):
        assert recognition.is_answer(answer, NOTHING_SAID)

    def test_reported_output_speaks_for_an_answer_that_shows_none(self):
        hidden = {"choices": [{"message": {"content": ""}}]}

        assert recognition.is_answer(hidden, TokenCounts(output=7))
        assert not recognition.is_answer({**hidden, "error": "no"}, TokenCounts(output=7))
