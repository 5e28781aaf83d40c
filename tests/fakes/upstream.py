"""A provider over a real socket that plays one scripted answer after another.

Each request takes the next step of the script, the last one again and again; what it was asked
is kept in `seen`. Steps are made by the functions below, or are any coroutine function that
takes the aiohttp request and returns its response.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Seen:
    """One request as the provider got it; the names of its headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


class ScriptedUpstream:
    """Use as an async context manager; `base_url` ends in `/v1`."""

    def __init__(self, *steps: Step) -> None:
        self.steps: list[Step] = list(steps) or [answer()]
        self.seen: list[Seen] = []
        self.aborted = 0
        self.base_url = ""
        self._next = 0
        self._runner: web.AppRunner | None = None

    def script(self, *steps: Step) -> None:
        """Play these steps from now on."""
        self.steps = list(steps)
        self._next = 0

    async def __aenter__(self) -> ScriptedUpstream:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.seen.append(
            Seen(
                request.path,
                {name.lower(): value for name, value in request.headers.items()},
                orjson.loads(raw) if raw else None,
            )
        )
        step = self.steps[min(self._next, len(self.steps) - 1)]
        self._next += 1
        try:
            return await step(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise


def encode(body: Any) -> bytes:
    """Return JSON, also of what orjson does not write: numbers and depths without a limit."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body).encode()


def usage(prompt: int = 120, completion: int = 40, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }


def completion(text: str = "Hello there.", *, use: Any = "default") -> dict[str, Any]:
    """Return an ordinary answer; `use` None leaves usage out."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "upstream-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
    }
    if use is not None:
        body["usage"] = usage() if use == "default" else use
    return body


def answer(
    body: Any = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
    after_s: float = 0,
) -> Step:
    """Answer with JSON (or bytes as they are), after a while."""

    async def step(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        found = completion() if body is None else body
        raw = found if isinstance(found, bytes) else encode(found)
        return web.Response(body=raw, status=status, headers=headers, content_type=content_type)

    return step


def refuse(status: int, *, message: str = "no", headers: dict[str, str] | None = None) -> Step:
    """Answer with OpenAI's error object."""
    body = {"error": {"message": message, "type": "x", "param": None, "code": None}}
    return answer(body, status=status, headers=headers)


def hang() -> Step:
    """Take the request and never answer."""

    async def step(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return step


def chunk(text: str = "tok", *, finish: str | None = None, **more: Any) -> bytes:
    """Return one frame of an ordinary stream."""
    delta = {"content": text} if text else {}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "upstream-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return b"data: " + encode(body) + b"\n\n"


def usage_chunk(prompt: int = 120, completion: int = 40) -> bytes:
    body = {"id": "chatcmpl-1", "choices": [], "usage": usage(prompt, completion)}
    return b"data: " + encode(body) + b"\n\n"


def frames(*texts: str, use: tuple[int, int] | None = (120, 40)) -> list[bytes]:
    """Return a whole ordinary stream."""
    parts = [chunk(text) for text in texts or ("Hel", "lo")]
    parts.append(chunk("", finish="stop"))
    if use:
        parts.append(usage_chunk(*use))
    return [*parts, DONE]


def stream(
    parts: Sequence[bytes] | None = None,
    *,
    pause_s: float = 0,
    then: str = "end",
    headers: dict[str, str] | None = None,
) -> Step:
    """Stream `parts`; `then`: "end", "hang", or "reset" the connection."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", **(headers or {})}
        )
        await response.prepare(request)
        for part in frames() if parts is None else parts:
            await response.write(part)
            await asyncio.sleep(pause_s)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "reset":
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    return step
