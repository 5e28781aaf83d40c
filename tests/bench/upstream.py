"""A provider that costs next to nothing: answers made beforehand, over a bare protocol.

A stream leaves frame by frame, each in its own write and its own turn of the loop, as a provider's
tokens do; the word `at-once` in the request brings the whole stream in one write instead, and
the word `paced` a chunk every 100 ms, each stamped with the moment it is written.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import orjson
import uvloop

from airi_server.launch import processes
from tests.bench import stamps

MODEL: Final = "bench-upstream"
CHUNKS: Final = 20
PACED_CHUNKS: Final = 30
PACE_S: Final = 0.1
USAGE: Final = {"prompt_tokens": 120, "completion_tokens": 40, "total_tokens": 160}
_TEXT: Final = "The quick brown fox jumps over the lazy dog, twenty times in a row. "


def _json(kind: str, **fields: Any) -> bytes:
    head = {"id": "chatcmpl-bench", "object": kind, "created": 1_700_000_000, "model": MODEL}
    return orjson.dumps({**head, **fields})


def _chunk(number: int, *, of: int, content: str) -> bytes:
    finish = "stop" if number == of else None
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return _json("chat.completion.chunk", choices=[choice])


def _encoded(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _answer() -> bytes:
    message = {"role": "assistant", "content": _TEXT * 3}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = _json("chat.completion", choices=[choice], usage=USAGE)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _stream(chunks: int, content: str) -> list[bytes]:
    """Return what to write, one write after the other; `*` in the content is the number."""
    payloads = [
        _chunk(number, of=chunks, content=content.replace("*", str(number)))
        for number in range(1, chunks + 1)
    ]
    payloads.append(_json("chat.completion.chunk", choices=[], usage=USAGE))
    writes = [_encoded(b"data: " + payload + b"\n\n") for payload in payloads]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    end = _encoded(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [head + writes[0], *writes[1:], end]


ANSWER: Final = _answer()
STREAM: Final = _stream(CHUNKS, " word*")
PACED: Final = _stream(PACED_CHUNKS, f" word* {stamps.PLACE.decode()}")
AT_ONCE: Final = [b"".join(STREAM)]


class Provider(asyncio.Protocol):
    """One kept-alive connection; requests are not pipelined."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._need = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._need and not self._read_head():
            return
        if len(self._buffer) >= self._need:
            request, self._buffer, self._need = self._buffer, b"", 0
            self._reply(request)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._need = end + 4 + length
        return True

    def _reply(self, request: bytes) -> None:
        if b'"stream":true' not in request and b'"stream": true' not in request:
            self._transport.write(ANSWER)
        elif b"paced" in request:
            self._write_paced(iter(PACED))
        else:
            self._write_next(iter(AT_ONCE if b"at-once" in request else STREAM))

    def _write_next(self, writes: Iterator[bytes]) -> None:
        part = next(writes, None)
        if part is not None and not self._transport.is_closing():
            self._transport.write(part)
            self._loop.call_soon(self._write_next, writes)

    def _write_paced(self, writes: Iterator[bytes]) -> None:
        part = next(writes, None)
        if part is not None and not self._transport.is_closing():
            self._transport.write(stamps.stamped(part))
            self._loop.call_later(PACE_S, self._write_paced, writes)


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Provider, sock=listener, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    options = parser.parse_args()
    processes.die_with_parent(signal.SIGTERM, parent=options.parent)
    uvloop.run(_serve(socket.socket(fileno=options.socket)))


if __name__ == "__main__":
    main()
