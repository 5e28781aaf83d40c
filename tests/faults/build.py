"""The application as a test build: a request may name the step at which its server dies.

A request with the header `fault-at: <step>` has the process that serves it end itself with SIGKILL
there; every other request is served as always. The steps are put around the functions of the
application from outside: nothing in the application knows of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextvars import ContextVar
from typing import Any, Final

from airi_server.asgi import application as airi
from airi_server.kernel import database
from billing import requests
from llmrouter.upstream import client

STEPS: Final = (
    "after_open",
    "before_dispatch",
    "after_first_upstream_byte",
    "after_first_client_byte",
    "mid_stream",
    "before_settle",
    "inside_settle",
    "after_settle",
    "before_response",
)
MIDDLE: Final = 3
"""After so many parts a stream is in its middle."""
_armed: ContextVar[str] = ContextVar("armed", default="")


def step(name: str) -> None:
    """Die here, if this request has asked for it."""
    if name and _armed.get() == name:
        os.kill(os.getpid(), signal.SIGKILL)


def _around(module: Any, name: str, *, before: str = "", after: str = "") -> None:
    function = getattr(module, name)

    async def stepped(*args: Any, **kwargs: Any) -> Any:
        step(before)
        result = await function(*args, **kwargs)
        step(after)
        return result

    setattr(module, name, stepped)


def _first_piece() -> None:
    _around(client, "take", after="after_first_upstream_byte")


def _before_the_commit() -> None:
    execute = database.execute

    async def stepped(lent: Any, sql: str, params: Any) -> Any:
        if sql == requests.SETTLE_SQL and _armed.get() == "inside_settle":
            await lent.execute("BEGIN")
        rows = await execute(lent, sql, params)
        if sql == requests.SETTLE_SQL:
            step("inside_settle")
        return rows

    database.execute = stepped


_around(requests, "open", after="after_open")
_around(client, "post", before="before_dispatch")
_first_piece()
_around(requests, "settle", before="before_settle", after="after_settle")
_before_the_commit()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection, with the steps on its way out."""
    if scope["type"] != "http":
        await airi(scope, receive, send)
        return
    _armed.set(dict(scope["headers"]).get(b"fault-at", b"").decode())
    sent = 0

    async def stepped(message: Any) -> None:
        nonlocal sent
        if message["type"] == "http.response.start":
            step("before_response")
        await send(message)
        if message.get("body") and _armed.get():
            sent += 1
            await asyncio.sleep(0.05)  # the loop hands bytes to the kernel between two turns
            if sent == 1:
                step("after_first_client_byte")
            if sent == MIDDLE:
                step("mid_stream")

    await airi(scope, receive, stepped)
