"""Upstreams that hold their answers until a test has broken what it wants to break."""

from __future__ import annotations

import asyncio
import threading

from aiohttp import web

from tests.fakes.upstream import answer, chunk, frames


class Gate:
    """`step` plays for every request; `open` lets all of them end, from any thread."""

    def __init__(self, *, holds_plain: bool = True) -> None:
        self._opened = threading.Event()
        self._holds_plain = holds_plain

    def open(self) -> None:
        self._opened.set()

    async def step(self, request: web.Request) -> web.StreamResponse:
        """Answer once the gate is open; a stream sends its first chunk before."""
        if not (await request.json()).get("stream"):
            if self._holds_plain:
                await self._pass()
            return await answer()(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("first"))
        await self._pass()
        for part in frames(*["word"] * 4):
            await response.write(part)
            await asyncio.sleep(0.02)
        await response.write_eof()
        return response

    async def _pass(self) -> None:
        while not self._opened.is_set():
            await asyncio.sleep(0.01)
