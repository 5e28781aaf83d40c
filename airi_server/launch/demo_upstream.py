"""A small OpenAI-compatible upstream for a first start without any key: it echoes.

It repeats the last user message word by word. A token is one whitespace-separated word here: the
usage it reports is what it read and wrote, counted that way, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from airi_server.launch import processes

MODEL: Final = "demo-echo"
KEY_VARIABLE: Final = "DEMO_UPSTREAM_KEY"
_WORD_S: Final = 0.02
_MAX_BYTES: Final = 64 * 1024 * 1024
_KEY: Final = web.AppKey("key", str)


class DemoRefusal(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class DemoCompletion:
    """What will be said: decided before the first byte leaves."""

    words: list[str]
    finish_reason: str
    prompt_tokens: int
    with_usage: bool
    id: str
    created: int

    @property
    def usage(self) -> dict[str, int]:
        written = len(self.words)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    @property
    def pieces(self) -> list[str]:
        """The text cut before each word, so that the pieces joined are the text."""
        return [word if number == 0 else f" {word}" for number, word in enumerate(self.words)]

    def frame(self, kind: str, **fields: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": MODEL}
        return {**head, **fields}


def application(key: str) -> web.Application:
    """Build the server; every request must carry the key."""
    app = web.Application(client_max_size=_MAX_BYTES, middlewares=[_gatekeeper])
    app[_KEY] = key
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _chat_completions)
    return app


@web.middleware
async def _gatekeeper(request: web.Request, handler: Any) -> web.StreamResponse:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not secrets.compare_digest(given.encode(), request.app[_KEY].encode()):
        return _refusal(DemoRefusal(401, "Incorrect API key provided.", "invalid_api_key"))
    try:
        response: web.StreamResponse = await handler(request)
    except DemoRefusal as refused:
        return _refusal(refused)
    return response


def _refusal(refused: DemoRefusal) -> web.Response:
    return web.json_response(refused.body, status=refused.status)


async def _models(_request: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "airi-demo"}
    return web.json_response({"object": "list", "data": [model]})


async def _chat_completions(request: web.Request) -> web.StreamResponse:
    body = _parsed(await request.read())
    completion = _completion(body)
    if body.get("stream") is True:
        return await _streamed(request, completion)
    message = {"role": "assistant", "content": "".join(completion.pieces), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
    return web.json_response(
        completion.frame("chat.completion", choices=[choice], usage=completion.usage)
    )


async def _streamed(request: web.Request, completion: DemoCompletion) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await response.prepare(request)
    try:
        for frame in _frames(completion):
            await response.write(b"data: " + json.dumps(frame).encode() + b"\n\n")
            await asyncio.sleep(_WORD_S)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
    except ConnectionResetError:
        pass  # The reader left; there is nobody to tell.
    return response


def _frames(completion: DemoCompletion) -> list[dict[str, Any]]:
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *(({"content": piece}, None) for piece in completion.pieces),
        ({}, completion.finish_reason),
    ]
    frames = [
        completion.frame(
            "chat.completion.chunk",
            choices=[{"index": 0, "delta": delta, "finish_reason": reason}],
        )
        for delta, reason in deltas
    ]
    if completion.with_usage:
        last = completion.frame("chat.completion.chunk", choices=[], usage=completion.usage)
        frames.append(last)
    return frames


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise DemoRefusal(400, "The body is not JSON.", "invalid_json") from error
    if not isinstance(body, dict):
        raise DemoRefusal(400, "The body must be a JSON object.", "invalid_type")
    return body


def _completion(body: Mapping[str, Any]) -> DemoCompletion:
    if body.get("model") != MODEL:
        message = f"The model {body.get('model')!r} does not exist."
        raise DemoRefusal(404, message, "model_not_found", "model")
    messages = _messages(body)
    said = [_text(message) for message in messages if message.get("role") == "user"]
    words = said[-1].split() if said else []
    limit = _limit(body)
    options = body.get("stream_options")
    return DemoCompletion(
        words=words[:limit],
        finish_reason="stop" if limit is None or len(words) <= limit else "length",
        prompt_tokens=sum(len(_text(message).split()) for message in messages),
        with_usage=isinstance(options, dict) and options.get("include_usage") is True,
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
    )


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DemoRefusal(400, "'messages' must be a list with one or more.", "invalid", "messages")
    if not all(isinstance(message, dict) for message in messages):
        raise DemoRefusal(400, "Every message must be an object.", "invalid_type", "messages")
    return messages


def _limit(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DemoRefusal(
                400, f"'{name}' must be a whole number of at least 1.", "invalid", name
            )
        return value
    return None


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return " ".join(text for text in texts if isinstance(text, str))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    options = parser.parse_args()
    processes.die_with_parent(signal.SIGTERM, parent=options.parent)
    listener = socket.socket(fileno=options.socket)
    server = application(os.environ.pop(KEY_VARIABLE))
    web.run_app(server, sock=listener, print=None, access_log=None, shutdown_timeout=1)


if __name__ == "__main__":
    main()
