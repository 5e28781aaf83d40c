"""Many clients at once, in a thread of their own, so that a test can break things meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Call:
    """One completion to ask for."""

    base_url: str
    key: str
    body: Mapping[str, Any] = field(default_factory=lambda: BODY)
    client_key: str | None = None


@dataclass(frozen=True)
class Told:
    """What a client was told. `status` 0: nothing; `cut`: not to its end."""

    status: int
    text: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class Crowd(threading.Thread):
    """Use as a context manager; `answers` are there when it ends, in the order of the calls."""

    def __init__(self, calls: Sequence[Call]) -> None:
        super().__init__(daemon=True)
        self._calls = calls
        self.answers: list[Told] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join(90)
        assert not self.is_alive()

    def run(self) -> None:
        self.answers = asyncio.run(ask_all(self._calls))


async def ask_all(calls: Sequence[Call]) -> list[Told]:
    async with session() as opened:
        return await asyncio.gather(*(ask(opened, call) for call in calls))


def session() -> aiohttp.ClientSession:
    """Return clients that open a connection for each request, as many do."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=60),
    )


async def ask(clients: aiohttp.ClientSession, call: Call) -> Told:
    """Send one request and read whatever comes back."""
    headers = {"Authorization": f"Bearer {call.key}"}
    if call.client_key:
        headers["Idempotency-Key"] = call.client_key
    text = b""
    try:
        async with clients.post(call.base_url + PATH, json=call.body, headers=headers) as got:
            try:
                async for part in got.content.iter_any():
                    text += part
            except aiohttp.ClientError:
                return Told(got.status, text, got.headers, cut=True)
            return Told(got.status, text, got.headers)
    except (aiohttp.ClientError, TimeoutError):
        return Told(0)


async def keep_asking(
    clients: aiohttp.ClientSession, make: Callable[[], Call], enough: asyncio.Event
) -> list[Told]:
    """Ask one thing after another until it is enough."""
    answers = []
    while not enough.is_set():
        answers.append(await ask(clients, make()))
    return answers
