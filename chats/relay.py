"""The way to the other instances: one subscription to the channel layer for the whole process.

What is told is a hint. Without Redis nothing here fails or waits; the head watch finds what was
missed (`chats.watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from channels.layers import get_channel_layer
from pydantic import ValidationError
from redis.exceptions import RedisError

from airi_server.kernel import ids
from chats import events
from chats.events import Batch, Sent

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 100
PUBLISH_S: Final = 2.0
READY_S: Final = 1.0
RETRY_S: Final = 1.0
AWAY: Final = (RedisError, OSError, TimeoutError)


class Layer(Protocol):
    """What we use of a channel layer."""

    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def flush(self) -> None: ...


class Relay:
    """Publishes what this process did, and hands on what others did.

    Args:
        accept: Called with each event of another process.
    """

    def __init__(self, accept: Callable[[Sent], None]) -> None:
        self.id = ids.nanoid()
        self._accept = accept
        self._layer = cast("Layer", get_channel_layer())
        self._waiting: deque[Sent] = deque(maxlen=MAX_WAITING)
        self._publishing: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._is_heard = True

    async def ready(self) -> None:
        """Wait until this process hears the others, or until it is known that it cannot."""
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        if not self._decided.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_S):
                    await self._decided.wait()

    async def restart(self) -> None:
        """Subscribe again at once, instead of when the layer notices that its connection died."""
        if self._listening is not None:
            await self._stop_listening()
            self._decided.clear()
            self._is_heard = True
            await self.ready()

    def publish(self, event: Sent) -> None:
        """Tell the other instances soon; the oldest events are dropped when too many wait."""
        self._waiting.append(event)
        self._start_publishing()

    async def check(self) -> None:
        """Find out whether we still hear ourselves; subscribe again if the last check was lost."""
        if not self._is_heard:
            await self.restart()
        self._is_heard = False
        await self._send([])

    async def close(self) -> None:
        if self._publishing is not None:
            await asyncio.wait([self._publishing], timeout=PUBLISH_S)
        await self._stop_listening()

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
            await self._flush()

    async def _listen(self) -> None:
        while True:
            try:
                channel = await self._layer.new_channel()
                await self._layer.group_add(events.GROUP, channel)
                await self._layer.group_send(events.GROUP, self._batch([]))
                while True:
                    self._receive(await self._layer.receive(channel))
            except AWAY:
                logger.warning("The channel layer is away")
            self._decided.set()
            await self._flush()
            await asyncio.sleep(RETRY_S)

    async def _flush(self) -> None:
        with contextlib.suppress(*AWAY):
            await self._layer.flush()

    def _receive(self, message: dict[str, Any]) -> None:
        try:
            batch = Batch.model_validate(message)
            if batch.instance == self.id:
                self._is_heard = True
                self._decided.set()
                return
            found = [Sent.model_validate(event) for event in batch.events]
        except ValidationError:
            # From another version, or from somebody who should not write here.
            logger.warning("Ignored an event that could not be read")
            return
        for event in found:
            self._accept(event)

    def _batch(self, sent: list[Sent]) -> dict[str, Any]:
        return Batch(instance=self.id, events=[event.model_dump() for event in sent]).model_dump()

    def _start_publishing(self) -> None:
        if self._publishing is None:
            self._publishing = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MAX_BATCH)
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._publishing = None

    async def _send(self, sent: list[Sent]) -> None:
        try:
            async with asyncio.timeout(PUBLISH_S):
                await self._layer.group_send(events.GROUP, self._batch(sent))
        except AWAY:
            logger.warning("Unable to tell other instances", extra={"events": len(sent)})
