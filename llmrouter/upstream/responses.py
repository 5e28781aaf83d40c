"""The answer of an upstream, taken part by part as it comes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, Protocol

PART_BYTES: Final = 64
"""What a part takes beside its bytes: an upstream may send them one by one."""
PIECE_BYTES: Final = 262_144
"""Decoded at once: a compressed byte may stand for a thousand."""


MAX_DECODED_BYTES: Final = 33_554_432
"""Of a compressed body: what grows beyond it is a bomb, or no answer of a model."""
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's names for the formats; a deflate without zlib's header is met when it is read."""
_NO_CODINGS: Final = frozenset({"", "identity", "none"})


class ByteSource(Protocol):
    """The connection that an answer comes over."""

    def go_on(self) -> None: ...

    def allow_silence(self, seconds: float) -> None: ...

    def hang_up(self) -> None: ...


class Disconnected(ConnectionError):
    """The connection ended before its answer. `heard` is whether anything of it had come."""

    def __init__(self, *, heard: bool) -> None:
        super().__init__("The upstream hung up.")
        self.heard = heard


class MalformedResponse(Exception):
    """What came is no HTTP, or more of it than a head may have."""


class Response:
    """An answer whose head has come. Its body is taken as it comes; `close` lets go of the rest.

    `headers` has the first value of each name, names in lower case. The rest belongs to the
    connection, which lets go of it with the last byte.
    """

    __slots__ = (
        "_decoder", "_waiter", "connection", "failure", "headers", "is_whole", "parts", "size",
        "status",
    )  # fmt: skip

    def __init__(self, connection: ByteSource) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection: ByteSource | None = connection
        self.parts: list[bytes] = []
        self.size = 0
        self.is_whole = False
        self.failure: Callable[[], Exception] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._decoder: Decoder | None = None

    def decode(self) -> bool:
        """Undo the coding of the body from here on; return whether it is one we can undo."""
        named = self.headers.get("content-encoding")
        if named is None:
            return True
        codings = [coding for each in named.split(",") if (coding := _plain(each))]
        if not codings:
            return True
        if len(codings) > 1 or codings[0] not in _WINDOW_BITS:
            return False
        self._decoder = Decoder(codings[0])
        return True

    def allow_silence(self, seconds: float) -> None:
        """Say how long nothing may come from now on."""
        if self.connection is not None:
            self.connection.allow_silence(seconds)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def take(self) -> bytes:
        """Return what has come since the last call, waiting until something has; b"" is the end.

        What came before a failure is returned first.

        Raises:
            TimeoutError: Nothing has come for too long.
            ConnectionError: The body broke off.
            Malformed: It is not framed as HTTP has it, or not coded as its header says.
        """
        if self._decoder is None:
            return await self._take()
        while not (decoded := self._decoder.rest()):
            part = await self._take()
            if not part:
                self._decoder.end()
                return b""
            self._decoder.feed(part)
        return decoded

    async def _take(self) -> bytes:
        while not self.parts:
            if self.failure is not None:
                raise self.failure()
            if self.connection is None:
                return b""
            await self.news()
        parts, self.parts, self.size = self.parts, [], 0
        if self.connection is not None:
            self.connection.go_on()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def put(self, part: bytes) -> None:
        self.parts.append(part)
        self.size += len(part) + PART_BYTES

    async def news(self) -> None:
        """Wait until something has happened to it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let go of the rest, if there is one, by hanging up."""
        if self.connection is not None:
            self.connection.hang_up()


class Decoder:
    """A compressed body, undone piece by piece and within bounds."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._zlib = zlib.decompressobj(_WINDOW_BITS[coding])
        self._waiting = b""
        self._size = 0
        self._is_fresh = True

    def feed(self, part: bytes) -> None:
        self._waiting += part

    def rest(self) -> bytes:
        """Return the next piece of what was fed, b"" if more is needed.

        Raises:
            Malformed: It cannot be undone, or grows beyond all bounds.
        """
        if not self._waiting:
            return b""
        try:
            piece = self._undo()
        except zlib.error as broken:
            raise MalformedResponse("The body is not coded as its header says.") from broken
        self._size += len(piece)
        if self._size > MAX_DECODED_BYTES:
            raise MalformedResponse("The body grows beyond all bounds.")
        return piece

    def _undo(self) -> bytes:
        fed, is_fresh, self._is_fresh = self._waiting, self._is_fresh, False
        try:
            piece = self._zlib.decompress(fed, PIECE_BYTES)
        except zlib.error:
            if not (is_fresh and self._coding == "deflate"):
                raise
            # The other deflate: without zlib's header.
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
            piece = self._zlib.decompress(fed, PIECE_BYTES)
        self._waiting = self._zlib.unconsumed_tail
        return piece

    def end(self) -> None:
        """Say that nothing follows.

        Raises:
            Malformed: Something was still to come.
        """
        if not (self._is_fresh or self._zlib.eof):
            raise MalformedResponse("The body broke off within its coding.")


def _plain(coding: str) -> str:
    """Return the name of a coding that changes something, else ""."""
    name = coding.strip().lower()
    return "" if name in _NO_CODINGS else name
