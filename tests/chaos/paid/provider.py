"""The provider: two places, one script that the seed decides, and a note of every attempt."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from tests.chaos.paid.record import PROMPT_BASE, Attempt, Record, Used
from tests.fakes import upstream
from tests.fakes.upstream import ScriptedUpstream

PLACES: Final = ("a", "b")


class Play(StrEnum):
    """What the provider does with a request."""

    ANSWER = "answered"
    SLOW = "answered slowly"
    NO_USAGE = "answered without usage"
    LATE_USAGE = "answered with late usage"
    REFUSE_401 = "refused with 401"
    REFUSE_429 = "refused with 429"
    REFUSE_500 = "refused with 500"
    RESET_BEFORE = "reset before the first byte"
    RESET_AFTER = "reset after it"
    HANG = "hung before the first byte"
    STALL = "stalled after it"
    CUT_SHORT = "ended too early"
    ALIVE = "answered after keep-alives"
    EMPTY = "answered with nothing"
    DISLIKE_403 = "refused one caller with 403"
    DISLIKE_500 = "refused one caller with 500"


_WEIGHTS: Final = {
    Play.ANSWER: 50, Play.SLOW: 16, Play.NO_USAGE: 8, Play.LATE_USAGE: 6, Play.REFUSE_401: 0.4,
    Play.REFUSE_429: 1.5, Play.REFUSE_500: 4, Play.RESET_BEFORE: 3, Play.RESET_AFTER: 4,
    Play.HANG: 1.5, Play.STALL: 2, Play.CUT_SHORT: 2, Play.ALIVE: 1, Play.EMPTY: 2,
}  # fmt: skip
_DISLIKES: Final = (Play.DISLIKE_403, Play.DISLIKE_500)
_REFUSALS: Final = {
    Play.REFUSE_401: 401, Play.REFUSE_429: 429, Play.REFUSE_500: 500,
    Play.DISLIKE_403: 403, Play.DISLIKE_500: 500,
}  # fmt: skip
_KEEP_ALIVES: Final = 11
"""Seconds of them: the client has its head by then, and no event."""


class Provider:
    """Takes requests at both places. A call's id stands in its first message."""

    def __init__(self, seed: int, record: Record) -> None:
        self._seed = seed
        self._record = record
        self._tries: dict[str, int] = {}

    async def serve(self, place: str, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        call = body["messages"][0]["content"].split()[0]
        self._tries[call] = turn = self._tries.get(call, 0) + 1
        dice = random.Random(f"{self._seed} {call} {turn}")
        play = self._choose(call, dice)
        attempt = Attempt(len(self._record.attempts) + 1, call, place, play.value, time.time())
        self._record.attempts.append(attempt)
        self._record.counts[f"provider {play.value}"] += 1
        if step := _without_text(play, body):
            return await step(request)
        if play is Play.HANG:
            await asyncio.Event().wait()
        if play is Play.RESET_BEFORE:
            await asyncio.sleep(dice.choice((0, 0.2)))
            return _reset(request)
        if play is not Play.NO_USAGE:
            attempt.used = _usage(attempt.number, dice)
        if body.get("stream"):
            return await self._stream(request, attempt, play, dice)
        return await self._answer(request, attempt, play, dice)

    def _choose(self, call: str, dice: random.Random) -> Play:
        if call.startswith("probe"):
            return Play.ANSWER
        (play,) = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        asked = self._record.calls.get(call)
        if asked and asked.person.user_id == self._record.noisy and dice.random() < 0.5:
            return dice.choice(_DISLIKES)
        return play

    async def _answer(
        self, request: web.Request, attempt: Attempt, play: Play, dice: random.Random
    ) -> web.StreamResponse:
        """Answer in one piece, or in half of one."""
        slow = play in (Play.SLOW, Play.LATE_USAGE)
        await asyncio.sleep(dice.uniform(0.3, 1.5) if slow else dice.uniform(0, 0.1))
        text = " ".join(["word"] * dice.randint(1, 40))
        body = upstream.completion(text, use=_as_reported(attempt.used))
        raw = upstream.encode({**body, "id": f"chatcmpl-{attempt.number}"})
        if play in (Play.ANSWER, Play.SLOW, Play.NO_USAGE, Play.LATE_USAGE, Play.ALIVE):
            attempt.frames, attempt.text_bytes, attempt.is_whole = 1, len(text), True
            return web.Response(body=raw, content_type="application/json")
        attempt.used = None
        half = raw[: len(raw) // 2]
        if play is Play.CUT_SHORT:
            return web.Response(body=half, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(raw)
        await response.prepare(request)
        await response.write(half)
        if play is Play.STALL:
            await asyncio.Event().wait()
        return _reset(request)

    async def _stream(
        self, request: web.Request, attempt: Attempt, play: Play, dice: random.Random
    ) -> web.StreamResponse:
        """Stream some frames; those that break do it somewhere among them."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        frames = dice.randint(2, 14)
        pause_s = dice.uniform(0.1, 0.4) if play is Play.SLOW else dice.choice((0, 0.02, 0.1))
        breaks = play in (Play.RESET_AFTER, Play.STALL, Play.CUT_SHORT)
        used = attempt.used
        if breaks:
            attempt.used = None
        await response.prepare(request)
        named = {"id": f"chatcmpl-{attempt.number}"}
        await _keep_alive(response, _KEEP_ALIVES if play is Play.ALIVE else 0)
        for _ in range(dice.randint(1, frames) if breaks else frames):
            # Counted first: what is on its way may arrive although we hear of an error.
            attempt.frames += 1
            attempt.text_bytes += len("word ")
            await response.write(upstream.chunk("word ", **named))
            await asyncio.sleep(pause_s)
        if play is Play.STALL:
            await asyncio.Event().wait()
        if play is Play.RESET_AFTER:
            return _reset(request)
        if play is Play.CUT_SHORT:
            if dice.random() < 0.5:
                attempt.used = used
                await response.write(_usage_frame(attempt))
            await response.write_eof()
            return response
        await response.write(upstream.chunk("", finish="stop", **named))
        if play is Play.LATE_USAGE:
            await asyncio.sleep(dice.uniform(0.3, 0.8))
        if attempt.used is not None:
            await response.write(_usage_frame(attempt))
        attempt.is_whole = True
        await response.write(upstream.DONE)
        await response.write_eof()
        return response


@contextlib.asynccontextmanager
async def serving(seed: int, record: Record) -> AsyncIterator[dict[str, str]]:
    """Serve both places; yield their base URLs by name."""
    provider = Provider(seed, record)
    async with contextlib.AsyncExitStack() as opened:
        servers = {
            place: await opened.enter_async_context(
                ScriptedUpstream(partial(provider.serve, place))
            )
            for place in PLACES
        }
        yield {place: server.base_url for place, server in servers.items()}


async def _keep_alive(response: web.StreamResponse, seconds: int) -> None:
    for _ in range(seconds):
        await response.write(b": keep-alive\n\n")
        await asyncio.sleep(1)


def _without_text(play: Play, body: dict[str, Any]) -> upstream.Step | None:
    """Return how a request is refused, or answered with nothing; None if it is not."""
    if play in _REFUSALS:
        headers = {"Retry-After": "1"} if play is Play.REFUSE_429 else None
        return upstream.refuse(_REFUSALS[play], headers=headers)
    if play is not Play.EMPTY:
        return None
    if body.get("stream"):
        return upstream.stream([upstream.chunk(""), upstream.DONE])
    return upstream.answer({"choices": [], "usage": upstream.usage()})


def _usage(number: int, dice: random.Random) -> Used:
    cached = dice.choice((0, 0, 0, 500))
    return Used(PROMPT_BASE + number, dice.randint(1, 60), cached)


def _as_reported(used: Used | None) -> dict[str, Any] | None:
    if used is None:
        return None
    details = {"prompt_tokens_details": {"cached_tokens": used.cached}}
    return upstream.usage(used.prompt, used.completion, **details)


def _usage_frame(attempt: Attempt) -> bytes:
    named = {"id": f"chatcmpl-{attempt.number}"}
    used = _as_reported(attempt.used)
    return b"data: " + upstream.encode({**named, "choices": [], "usage": used}) + b"\n\n"


def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
