"""Token estimates: of prompts by their bytes, of media by what they are. Pure.

Additive: the estimate of two texts is that of both together, within one token, however they come.
Media are what is inlined as a data URL or as long base64 in a part that is no text: four letters
of a picture are no token.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import imagesize

BYTES_PER_TOKEN: Final = 4
"""UTF-8 bytes of an average token."""
IMAGE_OUT_BYTES: Final = 1_290 * BYTES_PER_TOKEN
"""What a generated picture is worth in bytes of text; Gemini's documented 1,290 tokens."""
MIN_BASE64: Final = 1_024
"""A shorter run of base64 letters is an id, or text."""
MAX_DEPTH: Final = 5
HEAD_BYTES: Final = 98_304
"""Where the size of a JPEG stands, behind what a camera says of it."""
SHORT_HEAD_BYTES: Final = 192
"""Where that of others does."""
MAX_JPEGS: Final = 16
"""Of one request: the worst head takes milliseconds to walk. More are reckoned unseen."""
PER_MESSAGE: Final = 64
PER_TOOL: Final = 512
PER_REQUEST: Final = 2_048
"""What chat templates, tools and system prompts of a provider add at most."""
_WORTH_A_WALK: Final = (b"base64,", b'"data"', b'_url"', b'"file"')
_LETTERS: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\r\n"
)
_MAGIC: Final = (
    ("iVBOR", "image"), ("/9j/", "image"), ("R0lGOD", "image"), ("UklGR", "riff"),
    ("JVBERi", "pdf"), ("SUQz", "audio"), ("//u", "audio"), ("//v", "audio"), ("T2dnUw", "audio"),
    ("ZkxhQ", "audio"), ("GkXfo", "video"),
)  # fmt: skip
"""How base64 of known formats begins."""
_JPEG: Final = "/9j/"
_SIZED: Final = ("iVBOR", _JPEG, "R0lGOD", "UklGR")
"""PNG, JPEG, GIF and WebP: what the size is read of. Nothing else of a caller's is parsed."""


class Tokens(NamedTuple):
    """What something probably costs, and what it hardly exceeds."""

    estimate: int
    most: int


UNSIZED_IMAGE: Final = Tokens(1_600, 16_000)


class PromptSize(NamedTuple):
    """A request's input: its text in bytes, its media in tokens, and what templates may add."""

    text_bytes: int
    media: int = 0
    media_most: int = 0
    framing: int = PER_REQUEST

    @property
    def estimate(self) -> int:
        return self.text_bytes // BYTES_PER_TOKEN + self.media

    @property
    def bound(self) -> int:
        """What to reserve: a token for two bytes, as many scripts need, and twice the media."""
        return self.text_bytes // 2 + 2 * self.media

    @property
    def plausible(self) -> int:
        """The most a report may say: no tokenizer makes more tokens of a text than it has bytes."""
        return self.text_bytes + self.media_most + self.framing


def of_prompt(raw: bytes, body: dict[str, Any]) -> PromptSize:
    """Return the input of a request; its body is only walked where media may stand in it."""
    messages, tools = body.get("messages"), body.get("tools")
    framing = PER_REQUEST
    framing += PER_MESSAGE * len(messages) if isinstance(messages, list) else 0
    framing += PER_TOOL * len(tools) if isinstance(tools, list) else 0
    for word in _WORTH_A_WALK:  # `any` would make a generator of it, for every request
        if word in raw:
            break
    else:
        return PromptSize(len(raw), framing=framing)
    inlined = estimate = most = 0
    jpegs = 0
    for medium in _media(messages):
        is_jpeg = medium.letters.startswith(_JPEG)
        jpegs += is_jpeg
        tokens = UNSIZED_IMAGE if is_jpeg and jpegs > MAX_JPEGS else _tokens(medium)
        inlined += medium.inlined
        estimate += tokens.estimate
        most += tokens.most
    return PromptSize(max(0, len(raw) - inlined), estimate, most, framing)


def of_text(size: int) -> int:
    """Return the tokens of so many bytes of generated text."""
    return -(-size // BYTES_PER_TOKEN)


def spoken_bytes(letters: int) -> int:
    """Return what base64 of generated speech is worth in bytes of text: 32 tokens a second."""
    return max(letters * 3 // 4 * 32 // 16_000 * BYTES_PER_TOKEN, min(letters, 1))


class _Medium(NamedTuple):
    """One payload: what it is declared or seen to be, its base64, and how long it is inlined."""

    kind: str
    letters: str
    inlined: int

    @property
    def size(self) -> int:
        """Bytes once decoded."""
        return len(self.letters) * 3 // 4


def _media(messages: Any) -> Iterator[_Medium]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") not in ("text", "input_text"):
                yield from _payloads(part, str(part.get("type") or ""), MAX_DEPTH)


def _payloads(value: Any, declared: str, depth: int) -> Iterator[_Medium]:
    """Yield what is inlined or linked in one part, whatever its fields are called."""
    if depth == 0 or not isinstance(value, dict | list):
        return
    if isinstance(value, list):
        for item in value:
            yield from _payloads(item, declared, depth - 1)
        return
    said = [value.get(name) for name in ("media_type", "mime_type", "format")]
    declared = " ".join([declared, *(each for each in said if isinstance(each, str))])
    for name, item in value.items():
        if isinstance(item, str):
            yield from _payload(name, item, declared)
        else:
            yield from _payloads(item, f"{declared} {name}", depth - 1)


def _payload(name: str, text: str, declared: str) -> Iterator[_Medium]:
    if text.startswith("data:"):
        head, comma, letters = text[:300].partition(",")
        if comma and head.endswith("base64"):
            letters = text[len(head) + 1 :]
            yield _Medium(_kind(f"{head} {declared}", letters), letters, len(letters))
    elif text.startswith(("http://", "https://")) and "url" in f"{name} {declared}":
        yield _Medium(_kind(f"{name} {declared}", ""), "", 0)
    elif len(text) >= MIN_BASE64 and _LETTERS.issuperset(text[:MIN_BASE64].encode()):
        yield _Medium(_kind(declared, text), text, len(text))


def _kind(declared: str, letters: str) -> str:
    said = declared.lower()
    for letter, kind in _MAGIC:
        if letters.startswith(letter):
            if kind != "riff":
                return kind
            return "image" if b"WEBP" in _decoded(letters[:24]) else "audio"
    for kind in ("pdf", "image", "video", "audio"):
        if kind in said:
            return kind
    if any(word in said for word in ("wav", "mp3", "ogg", "flac", "opus", "pcm")):
        return "audio"
    return "other"


def _tokens(medium: _Medium) -> Tokens:
    """Return what a medium costs. Sources: providers' documents, and their reports as measured."""
    size = medium.size
    match medium.kind:
        case "image":
            return _of_image(medium.letters)
        case "pdf":
            pages, most = -(-size // 100_000), min(600, -(-size // 2_000))
            return Tokens(2_000 * max(1, pages), 3_000 * max(1, most))
        case "audio":
            return Tokens(_seconds(32, size, _byte_rate(medium.letters)), _seconds(32, size, 3_000))
        case "video":
            return Tokens(_seconds(263, size, 125_000), _seconds(300, size, 20_000))
    return Tokens(of_text(size), size)


def _seconds(tokens: int, size: int, byte_rate: int) -> int:
    return max(tokens, -(-tokens * size // byte_rate))


def _of_image(letters: str) -> Tokens:
    if not letters.startswith(_SIZED):
        return UNSIZED_IMAGE
    try:
        length = HEAD_BYTES if letters.startswith(_JPEG) else SHORT_HEAD_BYTES
        head = io.BytesIO(_decoded(letters[: length * 4 // 3]))
        width, height = imagesize.get(head)
    except (ValueError, struct.error, IndexError, TypeError, OverflowError, MemoryError):
        width = height = -1
    if width <= 0 or height <= 0:
        return UNSIZED_IMAGE
    tiles = -(-int(width) // 32) * -(-int(height) // 32)
    likely = min(4_800, max(100, int(width) * int(height) // 750))
    return Tokens(likely, max(likely, -(-tiles * 13 // 10)))


def _byte_rate(letters: str) -> int:
    """Return the bytes of a second of sound, as a WAV's header says, or those of speech."""
    head = _decoded(letters[:64])
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE" and len(head) >= 32:
        rate: int = struct.unpack_from("<I", head, 28)[0]
        return min(max(rate, 3_000), 1_536_000)
    return 16_000


def _decoded(letters: str) -> bytes:
    plain = letters.replace("-", "+").replace("_", "/").replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""
