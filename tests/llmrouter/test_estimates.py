"""Prompts in tokens: text by its bytes, media by what they are, wherever and however they stand."""

from __future__ import annotations

import base64
import struct
import time
import zlib

import imagesize
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.gateway import estimates

MB = 1_000_000


def letters(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int, size: int = 2_000) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + crc
    return head.ljust(size, b"\0")


def wav(byte_rate: int, size: int) -> bytes:
    head = (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt "
        + struct.pack("<IHHII", 16, 1, 1, byte_rate, byte_rate)
    )
    return head.ljust(size, b"\0")


def prompt_of(*parts):
    body = {"messages": [{"role": "user", "content": list(parts)}]}
    return estimates.of_prompt(orjson.dumps(body), body)


def image(data: bytes, media_type: str = "image/png"):
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{letters(data)}"}}


OPAQUE = letters(b"ABC" * (MB // 2))
SHAPES = {
    "image_url": {"type": "image_url", "image_url": {"url": "data:image/png;base64," + OPAQUE}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": OPAQUE, "format": "wav"}},
    "file": {"type": "file", "file": {"filename": "a.pdf",
                                      "file_data": "data:application/pdf;base64," + OPAQUE}},
    "video_url": {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + OPAQUE}},
    "audio_url": {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64," + OPAQUE}},
    "input_image": {"type": "input_image", "image_url": "data:image/png;base64," + OPAQUE},
    "Anthropic's": {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                                "data": OPAQUE}},
    "nested": {"type": "x", "x": [{"y": {"z": "data:image/png;base64," + OPAQUE}}]},
}  # fmt: skip


class TestMedia:
    @pytest.mark.parametrize("part", SHAPES.values(), ids=SHAPES.keys())
    def test_are_reckoned_as_media_whatever_they_are_called(self, part):
        prompt = prompt_of({"type": "text", "text": "x"}, part)

        assert 100 <= prompt.estimate < 50_000
        assert prompt.text_bytes < 400

    @pytest.mark.parametrize(
        ("data", "estimate", "most"),
        [
            (png(1024, 1024), 1_398, 1_398),
            (png(64, 64), 100, 100),
            (png(8_000, 8_000), 4_800, 81_250),
            (b"\xff\xd8\xff" + b"\0" * 2_000, 1_600, 16_000),
            (png(0, 0), 1_600, 16_000),
        ],
    )
    def test_a_picture_by_its_size(self, data, estimate, most):
        prompt = prompt_of(image(data))

        assert (prompt.media, prompt.media_most) == (estimate, most)

    @pytest.mark.parametrize(
        ("part", "estimate"),
        [
            (image(b"%PDF-1.7" + b"\0" * 300_000), 8_000),
            ({"type": "input_audio", "input_audio": {"data": letters(wav(32_000, 320_000)),
                                                     "format": "wav"}}, 320),
            ({"type": "input_audio", "input_audio": {"data": letters(b"ID3" + b"\0" * 160_000),
                                                     "format": "mp3"}}, 321),
            ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + letters(
                b"\0" * 1_250_000)}}, 2_630),
            ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, 1_600),
            ({"type": "file", "file": {"file_data": "data:text/plain;base64," + letters(
                b"a" * 300_000)}}, 75_000),
        ],
    )  # fmt: skip
    def test_others_by_their_kind(self, part, estimate):
        assert abs(prompt_of(part).media - estimate) <= 1

    def test_the_size_of_a_jpeg_stands_behind_what_a_camera_says(self):
        exif = b"\xff\xe1" + struct.pack(">H", 30_002) + b"\0" * 30_000
        frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 750, 1000, 3) + b"\0" * 9
        photo = image(b"\xff\xd8" + exif + frame + b"\0" * 99, "image/jpeg")

        assert prompt_of(photo).media == 1_000

    def test_only_so_many_are_looked_into(self):
        """Each head of these is 24,000 empty segments."""
        slow = image(b"\xff\xd8" + b"\xff\xe0\0\2" * 24_576, "image/jpeg")
        began = time.thread_time()
        prompt = prompt_of(*[slow] * 200)

        assert time.thread_time() - began < 2
        assert prompt.media == 200 * 1_600
        pdf = image(b"%PDF-1.7" + b"\0" * 900_000)
        assert prompt_of(*[slow] * 20, pdf).media == 20 * 1_600 + 20_000

    def test_nothing_else_of_a_callers_is_parsed(self, monkeypatch):
        monkeypatch.setattr(imagesize, "get", None)
        drawing = image(b"<svg xmlns='x' width='9' height='9'/>" * 40, "image/svg+xml")

        assert prompt_of(drawing).media == 1_600

    def test_what_it_is_beats_what_it_is_called(self):
        """Called a picture to be reckoned as one; but a PDF costs what a PDF costs."""
        assert prompt_of(image(b"%PDF-1.7" + b"\0" * 900_000)).media == 20_000

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "text", "text": "data:image/png;base64," + OPAQUE},
            {"type": "text", "text": OPAQUE, "image_url": "x"},
            {"type": "image_url", "image_url": {"url": "data:,"}, "note": "word " * 100_000},
            {"type": "image_url", "image_url": "x", "input_text": "word " * 100_000},
        ],
    )
    def test_text_is_text_wherever_it_stands(self, part):
        assert prompt_of(part).estimate > 100_000

    @pytest.mark.parametrize(
        "part", [None, 7, "x", [], {}, {"type": 7}, {"type": "image_url"}, {"type": "x", "x": None},
                 {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}},
                 {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
                 {"type": "input_audio", "input_audio": {"data": "UklGR"}}]
    )  # fmt: skip
    def test_odd_parts_are_the_clients_business(self, part):
        assert prompt_of(part, {"type": "image_url"}).estimate < 5_000

    def test_a_body_without_media_is_not_walked(self, monkeypatch):
        monkeypatch.setattr(estimates, "_media", None)

        assert prompt_of({"type": "text", "text": "hello"}).media == 0


class TestText:
    @given(st.integers(0, 10**7), st.integers(0, 10**7))
    def test_is_additive_within_a_token(self, one, other):
        parts = estimates.of_text(one) + estimates.of_text(other)

        assert parts - 1 <= estimates.of_text(one + other) <= parts

    def test_a_plausible_prompt_has_no_more_tokens_than_bytes(self):
        body = {"messages": [{"content": "x"}] * 3, "tools": [{}] * 2}
        raw = orjson.dumps(body)

        assert estimates.of_prompt(raw, body).plausible == len(raw) + 2_048 + 3 * 64 + 2 * 512
