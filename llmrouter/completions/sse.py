"""Server-sent events in passing: bytes are forwarded as they came, usage is read on the way.

No I/O. A chunk that ends on a frame boundary and carries nothing we need costs one scan; only
frames with usage, an error or the end marker are taken apart.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from billing.pricing import Usage
from llmrouter.completions import usage

_INTERESTING: Final = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]|"error"\s*:|\r')
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE: Final = re.compile(rb"\r\n|\n|\r")
MAX_HELD_BYTES: Final = 262_144
"""An unfinished frame longer than this is no usage report: it is passed on piece by piece."""
MAX_KEPT_BYTES: Final = 131_072
"""Forwarded frames kept to estimate from, should no usage ever be reported."""


class StreamReader:
    """Reads one upstream stream. Feed it chunks, forward what it returns.

    The end marker is held back in `end_marker`, so that the charge can be committed before the
    client sees the end. The usage chunk we asked for is left out unless the caller wanted it.
    """

    def __init__(self, *, hide_usage: bool, choices: int = 1) -> None:
        self.frames = 0
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.end_marker = b""
        self._unfinished = choices
        self._hide_usage = hide_usage
        self._held = b""
        self._in_long_frame = False
        self._long_bytes = 0
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._kept_frames = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be forwarded now: whole frames, as they came."""
        data = self._held + chunk if self._held else chunk
        if self._in_long_frame:
            self._held = data
            return self._take_frames()
        found = _first_interesting(data)
        # Whole frames in front of the first one we have to look at pass as they are.
        plain = data[: data.rfind(b"\n\n", 0, len(data) if found is None else found) + 2]
        if len(plain) < len(b"\n\n"):
            plain = b""
        else:
            self._keep(plain, plain.count(b"\ndata:") + plain.startswith(b"data:"))
        self._held = data[len(plain) :]
        if found is None and len(self._held) <= MAX_HELD_BYTES:
            return plain
        return plain + self._take_frames()

    def close(self) -> bytes:
        """Return what may still be forwarded now that the upstream has ended cleanly.

        An unfinished last frame that reads as JSON was only missing its blank line; anything
        else was cut off, and a client should not see half of it.
        """
        rest, self._held = self._held, b""
        if self._in_long_frame or not rest:
            return rest
        data = payload_of(rest)
        try:
            if data != b"[DONE]":
                usage.decode(data)
        except ValueError:
            return b""
        if not self._is_forwarded(rest):
            return b""
        self._keep(rest, 1)
        return rest

    @property
    def is_whole(self) -> bool:
        """Whether the upstream said that the answer is complete, and reported no error."""
        return self.error is None and (self._unfinished <= 0 or bool(self.end_marker))

    def estimate(self, prompt_estimate: int) -> Usage:
        """Return a guess at the usage: what was forwarded, a token for each frame at least."""
        text_bytes, with_text = usage.text_of_chunks(self._payloads())
        unkept = self.frames - self._kept_frames
        guess = usage.estimated(
            prompt_estimate=prompt_estimate,
            text_bytes=text_bytes + self._long_bytes,
            at_least=with_text,
        )
        return replace(guess, completion=guess.completion + unkept)

    def deltas(self) -> list[Any] | None:
        """Return what was forwarded as deltas, or None if not all of it was kept."""
        if self._long_bytes or self.frames > self._kept_frames:
            return None
        chunks = usage.choices_in(self._payloads())
        return [delta for choices in chunks for delta in usage.messages_of(choices)]

    def _payloads(self) -> Iterator[bytes]:
        return map(payload_of, _BOUNDARY.split(b"".join(self._kept)))

    def _keep(self, forwarded: bytes, frames: int) -> None:
        self.frames += frames
        if self._unfinished > 0:
            self._unfinished -= len(_FINISHED.findall(forwarded))
        if self._kept_bytes < MAX_KEPT_BYTES:
            self._kept.append(forwarded)
            self._kept_bytes += len(forwarded)
            self._kept_frames += frames

    def _take_frames(self) -> bytes:
        out = []
        start = 0
        for boundary in _BOUNDARY.finditer(self._held):
            frame = self._held[start : boundary.end()]
            start = boundary.end()
            if self._in_long_frame:
                self._in_long_frame = False
                self._long_bytes += len(frame)
                out.append(frame)
            elif self._is_forwarded(frame):
                self._keep(frame, int(b"data:" in frame))
                out.append(frame)
        self._held = self._held[start:]
        if self._in_long_frame or len(self._held) > MAX_HELD_BYTES:
            self._in_long_frame = True
            # A boundary may be split over two chunks: keep what could be the first part of it.
            cut = len(self._held) - 3
            self._long_bytes += cut
            out.append(self._held[:cut])
            self._held = self._held[cut:]
        return b"".join(out)

    def _is_forwarded(self, frame: bytes) -> bool:
        data = payload_of(frame)
        if data == b"[DONE]":
            self.end_marker = frame
            return False
        if not _INTERESTING.search(data):
            return True
        try:
            chunk = usage.decode(data)
        except ValueError:
            return True
        return not isinstance(chunk, dict) or self._read(chunk)

    def _read(self, chunk: dict[str, Any]) -> bool:
        if error := chunk.get("error"):
            self.error = error if isinstance(error, dict) else {"message": str(error)[:200]}
            return False  # what a provider says is passed on sanitized, at the end
        if not isinstance(chunk.get("usage"), dict):
            return True
        self.usage = usage.reported(chunk["usage"]) or self.usage
        return bool(chunk.get("choices")) or not self._hide_usage


def _first_interesting(data: bytes) -> int | None:
    """Return where the first thing stands that needs a look; four searches beat one pattern."""
    if b'"usage"' in data or b"[DONE]" in data or b'"error"' in data or b"\r" in data:
        found = _INTERESTING.search(data)
        return found.start() if found else None
    return None


def first_data(head: bytes) -> bytes:
    """Return the payload of the first whole frame with data; comments keep a connection alive."""
    start = 0
    for boundary in _BOUNDARY.finditer(head):
        if data := payload_of(head[start : boundary.end()]):
            return data
        start = boundary.end()
    return b""


def is_error(data: bytes) -> bool:
    """Return whether a frame's payload is an error object instead of a chunk."""
    if b'"error"' not in data:
        return False
    with contextlib.suppress(ValueError, AttributeError):
        return bool(usage.decode(data).get("error"))
    return False


def payload_of(frame: bytes) -> bytes:
    """Return the data of one frame: its `data` lines, joined, without comments and other fields."""
    lines = _LINE.split(frame)
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def error_frame(error: dict[str, Any]) -> bytes:
    """Return a frame that tells the client why the stream ends here."""
    return b"data: " + orjson.dumps(error) + b"\n\n"
