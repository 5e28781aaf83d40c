"""Stream opening: frames are held back until one generates something. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

from llmrouter.completions import recognition, sse
from llmrouter.gateway import usage

MAX_FRAME_BYTES: Final = 65_536
"""A longer first frame is judged by its beginning."""
MAX_HELD_BYTES: Final = 131_072
"""Of a stream that has generated nothing yet."""
_ERROR_WITHIN: Final = 512
_COMPLAINTS: Final = ("detail", "message", "msg", "code", "errors")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NO_STREAM: Final = re.compile(rb"\s*[\[{<]")


class OpeningVerdict(Enum):
    """What is known of a stream: it may still begin, it has, or it is none."""

    WAITING = 0
    BEGUN = 1
    BAD = 2


class Opening:
    """The beginning of a stream, held back until a frame generates something or has a reason.

    Feed it what comes until the verdict is not `WAITING`; `held` is what the client is sent then:
    everything but comments, which only say that the upstream lives.
    """

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self._rest = b""
        self._is_first = True
        self.has_generated = False
        """Whether something was generated, and not only a reason given."""
        self.refused = b""
        """What made it none: the data of an event, or the beginning of what is no stream."""
        self.is_body = False
        """Whether that is no stream at all, and may go on."""

    @property
    def held(self) -> bytes:
        return b"".join([*self._kept, self._rest])

    def feed(self, chunk: bytes) -> OpeningVerdict:
        data = self._rest + chunk
        if self._is_first:
            if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
                self._rest = data
                return OpeningVerdict.WAITING
            self._is_first = False
            data = data.removeprefix(_BYTE_ORDER_MARK)
        if not self._kept and _NO_STREAM.match(data):
            self.refused, self.is_body = data, True
            return OpeningVerdict.BAD
        start = 0
        for boundary in sse.BOUNDARY.finditer(data):
            frame = data[start : boundary.end()]
            start = boundary.end()
            self._rest = data[start:]
            verdict = self._keep(frame)
            if verdict is not OpeningVerdict.WAITING:
                return verdict
        self._rest = data[start:]
        return self._judge_length()

    def _keep(self, frame: bytes) -> OpeningVerdict:
        event, payload = sse.event_of(frame), sse.payload_of(frame)
        if event == b"error":
            self.refused = payload
            return OpeningVerdict.BAD
        if not payload:
            return OpeningVerdict.WAITING
        self._kept.append(frame)
        self._size += len(frame)
        verdict, self.has_generated = of_payload(payload)
        if verdict is OpeningVerdict.BAD and payload != b"[DONE]":
            self.refused = payload
        return verdict

    def _judge_length(self) -> OpeningVerdict:
        if len(self._rest) > MAX_FRAME_BYTES:
            start = self._rest[:MAX_FRAME_BYTES]
            is_chunk = b'"choices"' in start and b'"error"' not in start[:_ERROR_WITHIN]
            return OpeningVerdict.BEGUN if is_chunk else OpeningVerdict.BAD
        return OpeningVerdict.BAD if self._size > MAX_HELD_BYTES else OpeningVerdict.WAITING


def of_payload(payload: bytes) -> tuple[OpeningVerdict, bool]:
    """Judge the first frames of a stream by their data; also whether they generated something."""
    try:
        chunk = usage.decode(payload)
    except ValueError:  # the end marker too: nothing came before it
        return OpeningVerdict.BAD, False
    if chunk is None:
        return OpeningVerdict.WAITING, False
    if not isinstance(chunk, dict) or _is_complaint(chunk):
        return OpeningVerdict.BAD, False
    found = recognition.of_choices(chunk.get("choices"))
    verdict = OpeningVerdict.BEGUN if found.size or found.reason else OpeningVerdict.WAITING
    return verdict, found.size > 0


def _is_complaint(chunk: dict[str, Any]) -> bool:
    """Return whether a frame is an error in one of the shapes there are."""
    if chunk.get("error") or chunk.get("object") == "error":
        return True
    return "choices" not in chunk and any(chunk.get(name) for name in _COMPLAINTS)
