"""Server-sent events in passing: bytes are forwarded as they came, usage is read on the way.

No I/O. A chunk that ends on a frame boundary and carries nothing we need costs one scan; only
frames with usage, an error or the end marker are taken apart. What was generated is counted from
what is kept, 64 KiB at a time, so that the sum is the same in every framing and length.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from llmrouter.completions import recognition
from llmrouter.gateway import estimates, usage
from llmrouter.gateway.usage import Reports

_INTERESTING: Final = re.compile(rb'"usage"\s*:\s*\{|\[DONE\]|"error"\s*:|event:\s*error|\r')
_WORDS: Final = (b'"usage"', b"[DONE]", b'"error"', b"event:", b"\r")
"""How each of its branches begins."""
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LINE: Final = re.compile(rb"\r\n|\n|\r")
MAX_HELD_BYTES: Final = 262_144
"""An unfinished frame longer than this is no usage report: it is passed on piece by piece."""
MAX_KEPT_BYTES: Final = 65_536
"""Forwarded frames that are not counted yet; most streams end before."""
MAX_TEXT_BYTES: Final = 1_000_000
"""Generated text kept for a tokenizer, which would not count more of it."""
PING: Final = b": ping\n\n"


class StreamReader:
    """Reads one upstream stream. Feed it chunks, forward what it returns.

    The end marker is held back in `end_marker`, so that the charge can be committed before the
    client sees the end. The usage chunk we asked for is left out unless the caller wanted it.
    With `keeps_text` the deltas are kept for a tokenizer.
    """

    def __init__(self, *, hide_usage: bool, choices: int = 1, keeps_text: bool = False) -> None:
        self.reports = Reports()
        self.error: Any = None
        self.end_marker = b""
        self._unfinished = choices
        self._hide_usage = hide_usage
        self._held = b""
        self._in_long_frame = False
        self._is_long_medium = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._generated = 0
        self._text: list[Any] | None = [] if keeps_text else None
        self.has_generated = False
        """Whether that is known without counting."""

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
            self._keep(plain)
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
        self._keep(rest)
        return rest

    @property
    def is_whole(self) -> bool:
        """Whether the upstream said that the answer is complete, and reported no error."""
        return self.error is None and (self._unfinished <= 0 or bool(self.end_marker))

    @property
    def is_between_frames(self) -> bool:
        """Whether a comment of ours would not stand inside a frame."""
        return not self._in_long_frame

    @property
    def has_text(self) -> bool:
        """Whether anything was generated."""
        return self.has_generated or self.generated > 0

    @property
    def generated(self) -> int:
        """Bytes generated so far, in what was forwarded."""
        if self._kept:
            self._count()
        return self._generated

    def deltas(self) -> list[Any] | None:
        """Return what was forwarded as deltas, or None if not all of it was kept."""
        if self._kept:
            self._count()
        return self._text

    def _keep(self, forwarded: bytes) -> None:
        if self._unfinished > 0:
            self._unfinished -= len(_FINISHED.findall(forwarded))
        self._kept.append(forwarded)
        self._kept_bytes += len(forwarded)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._count()

    def _count(self) -> None:
        """Take what is kept apart, and let go of it."""
        frames = b"".join(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        for choices in usage.choices_in(map(payload_of, BOUNDARY.split(frames))):
            self._generated += recognition.of_choices(choices).size
            if self._text is not None:
                self._text += usage.messages_of(choices)
        if self._generated > MAX_TEXT_BYTES:
            self._text = None

    def _take_frames(self) -> bytes:
        out = []
        start = 0
        for boundary in BOUNDARY.finditer(self._held):
            frame = self._held[start : boundary.end()]
            start = boundary.end()
            if self._in_long_frame:
                self._in_long_frame = False
                self._count_piece(frame)
                out.append(frame)
            elif self._is_forwarded(frame):
                self._keep(frame)
                out.append(frame)
        self._held = self._held[start:]
        if self._in_long_frame or len(self._held) > MAX_HELD_BYTES:
            if not self._in_long_frame:
                self._begin_long_frame()
            # A boundary may be split over two chunks: keep what could be the first part of it.
            cut = len(self._held) - 3
            self._count_piece(self._held[:cut])
            out.append(self._held[:cut])
            self._held = self._held[cut:]
        return b"".join(out)

    def _begin_long_frame(self) -> None:
        self._in_long_frame = True
        self._text = None
        self._is_long_medium = b"base64," in self._held
        if self._is_long_medium:
            self._generated += estimates.IMAGE_OUT_BYTES

    def _count_piece(self, piece: bytes) -> None:
        if not self._is_long_medium:
            self._generated += len(piece)

    def _is_forwarded(self, frame: bytes) -> bool:
        data = payload_of(frame)
        if data == b"[DONE]":
            self.end_marker = frame
            return False
        if event_of(frame) == b"error":
            self.error = _said(data)
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
            self.error = error
            return False  # what a provider says is passed on cleaned, at the end
        self.reports.add(chunk)
        if not isinstance(chunk.get("usage"), dict):
            return True
        return bool(chunk.get("choices")) or not self._hide_usage


def _said(data: bytes) -> Any:
    """Return the data of an error event, whatever it is; never nothing."""
    try:
        return usage.decode(data) or {"message": ""}
    except ValueError:
        return data.decode("utf-8", "replace")


def _first_interesting(data: bytes) -> int | None:
    """Return where the first thing stands that needs a look; five searches beat one pattern.

    Where there is such a word, most often at the end, the pattern begins at it.
    """
    places = [place for word in _WORDS if (place := data.find(word)) >= 0]
    if not places:
        return None
    found = _INTERESTING.search(data, min(places))
    return found.start() if found else None


def event_of(frame: bytes) -> bytes:
    """Return the name of a frame's event, b"" if it has none."""
    if b"event:" not in frame:
        return b""
    named = [line[6:].strip() for line in _LINE.split(frame) if line.startswith(b"event:")]
    return named[-1] if named else b""


def payload_of(frame: bytes) -> bytes:
    """Return the data of one frame: its `data` lines, joined, without comments and other fields."""
    lines = _LINE.split(frame)
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def error_frame(error: dict[str, Any]) -> bytes:
    """Return a frame that tells the client why the stream ends here."""
    return b"data: " + orjson.dumps(error) + b"\n\n"
