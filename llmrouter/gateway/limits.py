"""Requests and tokens a minute, and requests in parallel, shared through Redis.

Redis is not waited for unless the answer hangs on it.

A minute is counted by two buckets, the running one and the share of the last one that still
lies within 60 s. Every take is sent to Redis without waiting; its reply brings what the other
instances took. Only the first of a minute and those from `NEAR` of a limit on wait for that
reply, so the last places are given out exactly. Without Redis each instance counts for itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from accounts.auth import Principal
from airi_server.kernel import redis, resources
from airi_server.kernel.errors import TooManyRequests
from llmrouter import telemetry
from llmrouter.configuration import options

ACQUIRE_SLOT_LUA: Final = resources.read_text("llmrouter", "lua/acquire_slot.lua")
WINDOW_S: Final = 60
NEAR: Final = 0.8
LEASE_S: Final = 60
RENEW_S: Final = 20
"""A lease is renewed while its request runs, so what a dead instance held is free in a minute."""
MAX_WINDOWS: Final = 50_000
Headers = tuple[tuple[str, str], ...]


class RateLimited(TooManyRequests):
    """A limit per minute is used up; `headers` tell the client where it stands."""

    def __init__(self, *, retry_after_s: int, headers: Headers) -> None:
        super().__init__("Too many requests", retry_after_s=retry_after_s)
        self.headers = dict(headers)


class _Window:
    """What this process knows of one name: the running bucket and the one before."""

    __slots__ = ("bucket", "current", "has_heard", "name", "previous")

    def __init__(self, name: str, bucket: int) -> None:
        self.name = name
        self.bucket = bucket
        self.current = 0
        self.previous = 0
        self.has_heard = False
        self._learn(bucket - 1)

    def roll(self, bucket: int) -> None:
        if bucket != self.bucket:
            self.previous = self.current if bucket == self.bucket + 1 else 0
            self.current = 0
            self.bucket = bucket
            self.has_heard = False

    def used(self, now: float) -> float:
        return self.current + self.previous * (1 - (now % WINDOW_S) / WINDOW_S)

    def take(self, amount: int) -> asyncio.Future[int]:
        """Count `amount` here and everywhere; the future is what all instances have counted."""
        self.current += amount
        bucket = self.bucket
        name = self._key(bucket)
        reply = redis.link().send("INCRBY", name, amount)
        redis.link().tell("EXPIRE", name, 2 * WINDOW_S)
        reply.add_done_callback(lambda counted: self._hear(bucket, counted))
        return reply

    def _learn(self, bucket: int) -> None:
        told = redis.link().send("GET", self._key(bucket))
        told.add_done_callback(lambda counted: self._hear(bucket, counted))

    def _hear(self, bucket: int, counted: asyncio.Future[int]) -> None:
        if counted.cancelled() or counted.exception():
            return
        total = int(counted.result() or 0)
        if bucket == self.bucket:
            self.current = max(self.current, total)
            self.has_heard = True
        elif bucket == self.bucket - 1:
            self.previous = max(self.previous, total)

    def _key(self, bucket: int) -> str:
        return redis.key("limit", self.name, str(bucket))


class _Slot:
    """One of a limited number of places, leased from all instances."""

    def __init__(self, name: str, member: str) -> None:
        self._name = name
        self._member = member
        self._loop = asyncio.get_running_loop()
        self._renewal = self._loop.call_later(RENEW_S, self._renew)

    def _renew(self) -> None:
        key, lapses_at = redis.key("limit", self._name), time.time() + LEASE_S
        redis.link().tell("ZADD", key, "XX", lapses_at, self._member)
        redis.link().tell("EXPIREAT", key, math.ceil(lapses_at))
        self._renewal = self._loop.call_later(RENEW_S, self._renew)

    def give_back(self) -> None:
        self._renewal.cancel()
        _leave(self._name)
        redis.link().tell("ZREM", redis.key("limit", self._name), self._member)


_windows: dict[str, _Window] = {}
_running: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Admission:
    """A place to run in; give it back with `release`. `headers` tell the client where it stands."""

    headers: Headers
    tokens: str | None
    slot: _Slot | None


UNLIMITED: Final = Admission((), None, None)


async def admit(principal: Principal, request_id: UUID | str) -> Admission:
    """Count a request against the limits of its key or, where that sets none, of its user.

    Raises:
        TooManyRequests: A limit is used up; `retry_after_s` says when to come back.
    """
    name, key_type, requests = _limit(
        principal, principal.requests_per_minute, options.COMPLETIONS_PER_MINUTE.current()
    )
    tokens_name, _, tokens = _limit(
        principal, principal.tokens_per_minute, options.TOKENS_PER_MINUTE.current()
    )
    slots_name, _, slots = _limit(
        principal, principal.parallel_requests, options.PARALLEL_REQUESTS.current()
    )
    if not (requests or tokens or slots):
        return UNLIMITED
    now = time.time()
    if tokens:
        _refuse_when_used(f"{tokens_name}:tokens", tokens, now, key_type)
    headers = await _take(f"{name}:requests", requests, now, key_type) if requests else ()
    member = str(request_id)
    slot = await _acquire(f"{slots_name}:slots", slots, member, key_type) if slots else None
    return Admission(headers, f"{tokens_name}:tokens" if tokens else None, slot)


def release(admission: Admission, *, tokens: int) -> None:
    """Give the place back and count the tokens that were used."""
    if admission.tokens and tokens:
        _ = _window(admission.tokens, time.time()).take(tokens)
    if admission.slot:
        admission.slot.give_back()


def forget() -> None:
    """Drop what this process has counted; for tests."""
    _windows.clear()
    _running.clear()


def _limit(principal: Principal, own: int | None, default: int) -> tuple[str, str, int]:
    """Return whom a limit is counted for, and the limit; 0 is none."""
    if own is not None and principal.api_key_id is not None:
        return f"{{{principal.user_id}}}:{principal.api_key_id}", "key", own
    return f"{{{principal.user_id}}}", "user", default


def _window(name: str, now: float) -> _Window:
    bucket = int(now // WINDOW_S)
    window = _windows.get(name)
    if window is None:
        if len(_windows) >= MAX_WINDOWS:
            _drop_idle(bucket)
        window = _windows[name] = _Window(name, bucket)
    window.roll(bucket)
    return window


def _drop_idle(bucket: int) -> None:
    for name in [name for name, window in _windows.items() if window.bucket < bucket - 1]:
        del _windows[name]
    if len(_windows) >= MAX_WINDOWS:
        _windows.clear()


async def _take(name: str, limit: int, now: float, key_type: str) -> Headers:
    window = _window(name, now)
    if window.used(now) + 1 > limit:
        raise _refusal(window, limit, now, key_type)
    hangs_on_others = not window.has_heard or window.used(now) >= NEAR * limit
    counted = window.take(1)
    if hangs_on_others:
        try:
            async with asyncio.timeout(redis.COMMAND_TIMEOUT_S):
                await asyncio.shield(counted)
        except redis.FAILURES:
            window.has_heard = True  # Redis is away: this instance's own count decides.
        if window.used(now) > limit:
            _ = window.take(-1)
            raise _refusal(window, limit, now, key_type)
    left = max(0, math.floor(limit - window.used(now)))
    return _headers(limit, left, WINDOW_S - now % WINDOW_S)


def _refuse_when_used(name: str, limit: int, now: float, key_type: str) -> None:
    window = _window(name, now)
    if window.used(now) >= limit:
        raise _refusal(window, limit, now, key_type)


def _refusal(window: _Window, limit: int, now: float, key_type: str) -> TooManyRequests:
    telemetry.rate_limited(key_type=key_type, limit=str(limit))
    left_of_bucket = WINDOW_S - now % WINDOW_S
    room = limit - window.current - 1
    if room >= 0 and window.previous:
        wait = left_of_bucket - WINDOW_S * room / window.previous
    else:
        wait = left_of_bucket
    return RateLimited(
        retry_after_s=max(1, math.ceil(wait)), headers=_headers(limit, 0, left_of_bucket)
    )


def _headers(limit: int, left: int, reset_s: float) -> Headers:
    return (
        ("RateLimit-Policy", f"{limit};w={WINDOW_S}"),
        ("RateLimit-Limit", str(limit)),
        ("RateLimit-Remaining", str(left)),
        ("RateLimit-Reset", str(math.ceil(reset_s))),
    )


async def _acquire(name: str, limit: int, member: str, key_type: str) -> _Slot:
    running = _running.get(name, 0)
    if running >= limit:
        raise _no_slot(limit, key_type)
    _running[name] = running + 1
    now = time.time()
    try:
        taken = await redis.link().ask(
            "EVAL",
            ACQUIRE_SLOT_LUA,
            1,
            redis.key("limit", name),
            now,
            now + LEASE_S,
            limit,
            member,
        )
    except redis.FAILURES:
        taken = True  # Redis is away: this instance's own count decides.
    except BaseException:
        # Redis may have granted the place all the same.
        _Slot(name, member).give_back()
        raise
    if not taken:
        _leave(name)
        raise _no_slot(limit, key_type)
    return _Slot(name, member)


def _leave(name: str) -> None:
    _running[name] -= 1
    if not _running[name]:
        del _running[name]


def _no_slot(limit: int, key_type: str) -> TooManyRequests:
    telemetry.rate_limited(key_type=key_type, limit=str(limit))
    return TooManyRequests("Too many parallel requests", retry_after_s=1)
