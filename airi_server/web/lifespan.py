"""ASGI lifespan: what is prepared before the first request, and drained after the last."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from types import FrameType
from typing import Any, Final

import psycopg
from django.conf import settings
from django.urls import get_resolver

from airi_server import boot, telemetry
from airi_server.kernel import database, pubsub, redis
from airi_server.runtime import published
from airi_server.web.bodies import Receive, Scope
from airi_server.web.handler import Send
from airi_server.web.health import Draining
from billing.usage import refusals
from chats import fanout
from chats.sockets import hub
from llmrouter.gateway import tasks
from llmrouter.upstream import client

logger = logging.getLogger(__name__)
GC_THRESHOLDS: Final = (50_000, 10, 10)


async def lifespan(_scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the ASGI lifespan: on shutdown every paid request is waited for."""
    await receive()
    try:
        await _start()
    except Exception as fault:
        said = boot.database_fault(fault) if isinstance(fault, psycopg.Error) else None
        logger.exception("Unable to start", exc_info=said is None, extra={"fault": said})
        # What it has opened goes on by itself, and would keep a process that is to end.
        await _close()
        await send({"type": "lifespan.startup.failed", "message": said or "see the log"})
        return
    stopping = Stopping()
    stopping.take_signals()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await stopping.drained()
    await hub.close()
    await refusals.close()
    await client.close()
    await _close()
    telemetry.shut_down()
    await send({"type": "lifespan.shutdown.complete"})


async def _close() -> None:
    for close in (pubsub.close, redis.close, database.close):
        await close()


class Stopping:
    """The way from SIGTERM to the last settlement.

    A server closes its sockets at the signal, waits for its connections and only then tells the
    lifespan. So the signal is taken first: readiness fails, and after `SHUTDOWN_DELAY_S` chat
    sockets are closed and the server hears of it too; whatever streams longer than
    `SHUTDOWN_GRACE_S` is ended with an error frame and settled.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._drain: asyncio.Task[None] | None = None

    def take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._take(number, signal.getsignal(number))

    def _take(self, number: signal.Signals, server: Any) -> None:
        def stop(received: int, frame: FrameType | None) -> None:
            Draining.is_on = True
            self._loop.call_soon_threadsafe(self._begin)
            if callable(server):
                delay_s = settings.SHUTDOWN_DELAY_S
                self._loop.call_soon_threadsafe(
                    self._loop.call_later, delay_s, server, received, frame
                )

        signal.signal(number, stop)

    def _begin(self) -> None:
        if self._drain is None:
            grace_s = settings.SHUTDOWN_DELAY_S + settings.SHUTDOWN_GRACE_S
            self._drain = self._loop.create_task(tasks.drain(grace_s))
            self._loop.call_later(settings.SHUTDOWN_DELAY_S, hub.drain)

    async def drained(self) -> None:
        """Wait until no paid request is left open by this process."""
        Draining.is_on = True
        self._begin()
        if self._drain is not None:
            await self._drain


async def _absence() -> str | None:
    """Say in a line which variable leads to no database, and why."""
    try:
        await database.knock()
    except psycopg.Error as fault:
        return boot.database_fault(fault)
    return "It has come back."


async def _start() -> None:
    # Importing the routes has registered every kind of thing that operators publish.
    get_resolver().url_patterns  # noqa: B018  the import is what matters
    try:
        await published.refresh()
    except database.AWAY:
        # Readiness says so; the first request after it is back loads what is needed.
        logger.warning("Started without the database", extra={"fault": await _absence()})
    fanout.current().is_lasting = True
    # What exists now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
