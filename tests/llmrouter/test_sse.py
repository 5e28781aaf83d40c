"""The stream reader: whatever the split, the same bytes go on and the same usage is read."""

from __future__ import annotations

import itertools
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrouter.completions import sse
from llmrouter.completions.sse import StreamReader
from llmrouter.gateway import estimates
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


def counts(reader):
    """Return input and output as the reader's reports have them."""
    found = reader.reports.counts(has_text=True)
    return found.input, found.output


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
        assert counts(reader) == ((None, None) if usage_at is None else (300, 700))
        assert reader.is_whole

    @given(whole_streams(), st.lists(st.integers(0, 10_000), max_size=10))
    def test_estimates_the_same(self, made, cuts):
        frames, _ = made
        stream = b"".join(frames)

        assert read(split(stream, cuts))[0].generated == read([stream])[0].generated

    @pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
    def test_byte_by_byte(self, newline):
        stream = b"".join(fake.frames("a", "b", use=(3, 4))).replace(b"\n", newline)

        reader, forwarded = read([bytes([byte]) for byte in stream])

        usage_and_end = (fake.usage_chunk(3, 4) + fake.DONE).replace(b"\n", newline)
        assert forwarded == stream.removesuffix(usage_and_end)
        assert (counts(reader), reader.generated) == ((3, 4), 2)

    @pytest.mark.parametrize("blank", [b"\n\r\n", b"\r\n\n"])
    def test_newlines_of_two_kinds_end_a_frame_too(self, blank):
        chunk, report = fake.chunk("a").strip(), fake.usage_chunk(3, 4).strip()

        reader, forwarded = read([chunk + blank + report + blank + b"data: [DONE]" + blank])

        assert (counts(reader), reader.end_marker) == ((3, 4), b"data: [DONE]" + blank)
        assert forwarded == chunk + blank


class TestUsage:
    def test_may_come_with_an_early_chunk_that_is_forwarded(self):
        early = fake.chunk("a", usage=fake.usage(7, 1))

        reader, forwarded = read([early, fake.chunk("b"), fake.DONE])

        assert counts(reader) == (7, 1)
        assert forwarded == early + fake.chunk("b")

    def test_highest_fields_that_make_sense_count(self):
        nonsense = b'data: {"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":2}}\n\n'

        reader, _ = read([fake.usage_chunk(1, 1), fake.usage_chunk(2, 2), nonsense, fake.DONE])

        assert counts(reader) == (2, 2)

    def test_text_that_talks_about_usage_is_text(self):
        talk = fake.chunk('"usage": {"prompt_tokens": 1} and data: [DONE] and "error": 1')

        reader, forwarded = read([talk, fake.DONE])

        assert (forwarded, counts(reader), reader.error) == (talk, (None, None), None)

    @pytest.mark.parametrize(
        "report", [b'"usage":null', b'"usage":[]', b'"usage":7', b'"usage":""']
    )
    def test_no_object_is_no_report(self, report):
        frame = b'data: {"choices":[{"delta":{"content":"x"}}],' + report + b"}\n\n"

        reader, forwarded = read([frame, fake.DONE])

        assert (counts(reader), forwarded) == ((None, None), frame)


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


class TestGenerated:
    """Additive: what was generated is counted, however it was framed."""

    @given(st.lists(TEXTS, min_size=1, max_size=30), st.integers(1, 400))
    def test_is_the_same_in_every_framing(self, texts, kept):
        whole = read([fake.chunk("".join(texts)), fake.DONE])[0].generated
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sse, "MAX_KEPT_BYTES", kept)
            parts = read([*map(fake.chunk, texts), fake.DONE])[0].generated

        assert whole == parts == len("".join(texts).encode())

    def test_reads_data_over_several_lines(self):
        first, second = fake.chunk("x" * 400).strip()[6:].split(b",", 1)

        reader, _ = read([b"data: " + first + b",\ndata: " + second + b"\n\n"])

        assert reader.generated == 400

    def test_is_counted_as_it_passes_and_let_go(self):
        reader = StreamReader(hide_usage=True)
        for _ in range(2_000):
            reader.feed(fake.chunk("abcd"))

        assert len(reader._kept) * len(fake.chunk("abcd")) <= sse.MAX_KEPT_BYTES + 1_000
        assert reader.generated == 8_000
        assert reader._kept == []

    def test_frames_that_no_json_parser_reads_are_nothing(self):
        reader, _ = read([b"data: {nonsense}\n\n", b"data: \xff{\n\n"])

        assert reader.generated == 0

    def test_deltas_are_kept_for_a_tokenizer_only(self):
        parts = [fake.chunk("a"), fake.chunk("b"), fake.DONE]
        keeping = StreamReader(hide_usage=True, keeps_text=True)
        for part in parts:
            keeping.feed(part)

        assert [delta["content"] for delta in keeping.deltas() or ()] == ["a", "b"]
        assert read(parts)[0].deltas() is None


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
        assert (counts(reader), reader.is_whole) == ((5, 6), True)

    def test_is_charged_for_when_nobody_reports_usage(self):
        reader, _ = read(
            [b'data: {"choices":[{"delta":{"content":"', *[b"x" * 65_536] * 16, b'"}}]}\n\n']
        )

        assert reader.generated >= 16 * 65_536

    def test_of_a_picture_is_charged_as_a_picture(self):
        start = b'data: {"choices":[{"delta":{"images":[{"image_url":{"url":"data:x;base64,'

        reader, _ = read([start + b"A" * 300_000, *[b"A" * 65_536] * 40, b'"}}]}}]}\n\n'])

        assert reader.generated == estimates.IMAGE_OUT_BYTES

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


@pytest.mark.parametrize(
    "said", [b'{"code":529,"message":"Overloaded"}', b"upstream overloaded", b"", b"null"]
)
def test_an_error_event_makes_it_broken(said):
    reader, forwarded = read([fake.chunk("a"), b"event: error\ndata: " + said + b"\n\n", fake.DONE])

    assert (forwarded, reader.is_whole) == (fake.chunk("a"), False)


def test_the_error_frame_is_one_frame_of_json():
    frame = sse.error_frame({"error": {"message": "a\nb"}})

    assert frame.endswith(b"\n\n")
    assert orjson.loads(sse.payload_of(frame)) == {"error": {"message": "a\nb"}}
