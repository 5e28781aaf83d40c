"""The stream reader: whatever the split, the same bytes go on and the same usage is read."""

from __future__ import annotations

import itertools
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.pricing import Source, Usage
from llmrouter.completions import sse
from llmrouter.completions.sse import StreamReader
from tests.fakes import upstream as fake

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=12)


@st.composite
def frame_bodies(draw):
    """One frame as lines: an ordinary chunk, a comment, named events, data over several lines."""
    kind = draw(st.sampled_from(["chunk", "chunk", "comment", "event", "lines", "tight", "text"]))
    text = draw(TEXTS)
    chunk = fake.chunk(text).strip()
    if kind == "comment":
        return [b": " + text.encode()]
    if kind == "event":
        return [b"event: delta", b"id: 7", chunk]
    if kind == "lines":
        first, second = chunk[6:].split(b",", 1)
        return [b"data: " + first + b",", b"data: " + second]
    if kind == "tight":
        return [b"data:" + chunk[6:]]
    return [b"data: " + text.encode()] if kind == "text" else [chunk]


@st.composite
def whole_streams(draw):
    """Return (frames, index of the usage frame or None); the last frame is the end marker."""
    newline = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    bodies = draw(st.lists(frame_bodies(), min_size=1, max_size=8))
    has_usage = draw(st.booleans())
    if has_usage:
        bodies.append([fake.usage_chunk(300, 700).strip()])
    bodies.append([b"data: [DONE]"])
    frames = [newline.join(lines) + newline * 2 for lines in bodies]
    return frames, (len(frames) - 2 if has_usage else None)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def read(parts, *, hide_usage=True):
    reader = StreamReader(hide_usage=hide_usage)
    forwarded = b"".join(reader.feed(part) for part in parts)
    return reader, forwarded + reader.close()


class TestAnySplit:
    @given(whole_streams(), st.lists(st.integers(0, 10_000), max_size=30), st.booleans())
    def test_forwards_the_same_bytes_and_reads_the_same_usage(self, made, cuts, hide_usage):
        frames, usage_at = made
        reader, forwarded = read(split(b"".join(frames), cuts), hide_usage=hide_usage)

        hidden = {usage_at} if hide_usage else set()
        expected = [f for i, f in enumerate(frames[:-1]) if i not in hidden]
        assert forwarded == b"".join(expected)
        assert reader.end_marker == frames[-1]
        assert reader.usage == (None if usage_at is None else Usage(300, 700))
        assert reader.is_whole

    @given(whole_streams(), st.lists(st.integers(0, 10_000), max_size=10))
    def test_estimates_the_same(self, made, cuts):
        frames, _ = made
        stream = b"".join(frames)

        assert read(split(stream, cuts))[0].estimate(5) == read([stream])[0].estimate(5)

    @pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
    def test_byte_by_byte(self, newline):
        stream = b"".join(fake.frames("a", "b", use=(3, 4))).replace(b"\n", newline)

        reader, forwarded = read([bytes([byte]) for byte in stream])

        usage_and_end = (fake.usage_chunk(3, 4) + fake.DONE).replace(b"\n", newline)
        assert forwarded == stream.removesuffix(usage_and_end)
        assert (reader.usage, reader.frames) == (Usage(3, 4), 3)

    @pytest.mark.parametrize("blank", [b"\n\r\n", b"\r\n\n"])
    def test_newlines_of_two_kinds_end_a_frame_too(self, blank):
        chunk, report = fake.chunk("a").strip(), fake.usage_chunk(3, 4).strip()

        reader, forwarded = read([chunk + blank + report + blank + b"data: [DONE]" + blank])

        assert (reader.usage, reader.end_marker) == (Usage(3, 4), b"data: [DONE]" + blank)
        assert forwarded == chunk + blank


class TestUsage:
    def test_may_come_with_an_early_chunk_that_is_forwarded(self):
        early = fake.chunk("a", usage=fake.usage(7, 1))

        reader, forwarded = read([early, fake.chunk("b"), fake.DONE])

        assert reader.usage == Usage(7, 1)
        assert forwarded == early + fake.chunk("b")

    def test_last_report_that_makes_sense_counts(self):
        nonsense = b'data: {"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":2}}\n\n'

        reader, _ = read([fake.usage_chunk(1, 1), fake.usage_chunk(2, 2), nonsense, fake.DONE])

        assert reader.usage == Usage(2, 2)

    def test_text_that_talks_about_usage_is_text(self):
        talk = fake.chunk('"usage": {"prompt_tokens": 1} and data: [DONE] and "error": 1')

        reader, forwarded = read([talk, fake.DONE])

        assert (forwarded, reader.usage, reader.error) == (talk, None, None)

    @pytest.mark.parametrize(
        "report", [b'"usage":null', b'"usage":[]', b'"usage":7', b'"usage":""']
    )
    def test_no_object_is_no_report(self, report):
        frame = b'data: {"choices":[{"delta":{"content":"x"}}],' + report + b"}\n\n"

        reader, forwarded = read([frame, fake.DONE])

        assert (reader.usage, forwarded) == (None, frame)


class TestEnd:
    def test_a_stream_without_end_is_not_whole(self):
        reader, _ = read([fake.chunk("a")])

        assert not reader.is_whole

    def test_a_finish_reason_makes_a_stream_whole(self):
        reader, _ = read([fake.chunk("a"), fake.chunk("", finish="stop")])

        assert reader.is_whole

    def test_an_error_frame_makes_it_broken_whatever_follows(self):
        failed = b'data: {"error":{"message":"overloaded"}}\n\n'

        reader, forwarded = read(
            [fake.chunk("a"), failed, fake.chunk("", finish="error"), fake.DONE]
        )

        assert not reader.is_whole
        assert reader.error == {"message": "overloaded"}
        assert b"overloaded" not in forwarded

    def test_a_whole_last_frame_without_its_blank_line_goes_on(self):
        last = fake.chunk("b").strip()

        assert read([fake.chunk("a"), last])[1] == fake.chunk("a") + last

    @pytest.mark.parametrize("cut", [b"data", b'data: {"choices":[{"del', b": comm", b"data: [DO"])
    def test_half_a_frame_does_not(self, cut):
        assert read([fake.chunk("a"), cut])[1] == fake.chunk("a")

    def test_an_end_marker_without_its_blank_line_counts(self):
        reader, forwarded = read([fake.chunk("a"), b"data: [DONE]"])

        assert reader.is_whole
        assert forwarded == fake.chunk("a")


class TestEstimate:
    def test_counts_a_token_for_each_frame_with_text_and_four_bytes_otherwise(self):
        reader, _ = read([fake.chunk("a"), fake.chunk("b" * 40), fake.chunk("")])

        assert reader.estimate(9) == Usage(9, 11, source=Source.ESTIMATED)

    def test_reads_data_over_several_lines(self):
        first, second = fake.chunk("x" * 400).strip()[6:].split(b",", 1)

        reader, _ = read([b"data: " + first + b",\ndata: " + second + b"\n\n"])

        assert reader.estimate(0).completion == 100

    def test_counts_what_was_not_kept_by_frames(self, monkeypatch):
        monkeypatch.setattr(sse, "MAX_KEPT_BYTES", 1)

        reader, _ = read([fake.chunk("a")] * 5)

        assert reader.estimate(0).completion == 5

    def test_frames_that_no_json_parser_reads_cost_nothing(self):
        reader, _ = read([b"data: {nonsense}\n\n", b"data: \xff{\n\n"])

        assert reader.estimate(3) == Usage(3, 0, source=Source.ESTIMATED)


class TestLongLine:
    def test_ten_megabytes_in_one_line_pass_in_flat_memory(self):
        start = b'data: {"choices":[{"index":0,"delta":{"content":"'
        piece = b"x" * 65_536
        reader = StreamReader(hide_usage=True)
        size = 0
        tracemalloc.start()
        size += len(reader.feed(start))
        for _ in range(160):
            size += len(reader.feed(piece))
        size += len(reader.feed(b'"}}]}\n\n' + fake.usage_chunk(5, 6) + fake.DONE))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert size == len(start) + 160 * 65_536 + len(b'"}}]}\n\n')
        assert peak < 4 * 2**20
        assert (reader.usage, reader.is_whole) == (Usage(5, 6), True)

    def test_is_charged_for_when_nobody_reports_usage(self):
        reader, _ = read(
            [b'data: {"choices":[{"delta":{"content":"', *[b"x" * 65_536] * 16, b'"}}]}\n\n']
        )

        assert reader.estimate(0).completion >= 16 * 65_536 // 4

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 5_000), max_size=40))
    def test_any_split_of_it_forwards_the_same_bytes(self, cuts):
        long = b"data: " + b"y" * 4_000 + b"\r\n\r\n"
        frames = [fake.chunk("a"), long, fake.chunk("b")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sse, "MAX_HELD_BYTES", 300)
            reader, forwarded = read(split(b"".join([*frames, fake.DONE]), cuts))

        assert forwarded == b"".join(frames)
        assert reader.end_marker == fake.DONE


class TestFirstData:
    def test_comments_are_none(self):
        assert not sse.first_data(b": hello\n\n: still\n\n")
        assert not sse.first_data(b"data: {half")
        assert sse.first_data(b": hello\n\ndata: 1\n\n")


def test_the_error_frame_is_one_frame_of_json():
    frame = sse.error_frame({"error": {"message": "a\nb"}})

    assert frame.endswith(b"\n\n")
    assert orjson.loads(sse.payload_of(frame)) == {"error": {"message": "a\nb"}}
