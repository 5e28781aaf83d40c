"""The fan-out bus: one kind of event, told to the sockets of every instance.

An event says which numbers were handed out in which chat, never their content. It is delivered in
this process at once, and published to the others through one group of the channel layer. It is a
hint: without Redis nothing here fails, and the head watch finds what was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Final, Protocol, cast

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from redis.exceptions import RedisError

from airi_server.kernel import ids
from airi_server.kernel.loops import PerLoop
from chats import membership
from chats.messages import SendResult
from chats.models import ID_PATTERN, Chat

logger = logging.getLogger(__name__)

GROUP: Final = "chats"
"""Every instance that has sockets listens to it, and to nothing else."""
TYPE: Final = "chats.sent"
MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 100
PUBLISH_S: Final = 2.0
SILENT_S: Final = 30.0
"""For so long nothing waits for a Redis that has let somebody wait in vain."""
READY_S: Final = 1.0
RETRY_S: Final = 1.0
AWAY: Final = (RedisError, OSError, TimeoutError)

Seq = Annotated[int, Field(ge=1, lt=2**63)]
NotBlank = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]


class ChatEvent(BaseModel):
    """Numbers were handed out in a chat, or the chat was deleted.

    Attributes:
        from_seq: The first of the numbers. Of a deleted chat: one beyond a gap behind its last
            number, so that every client pulls, and is told that there is no such chat.
        members: User ids at the commit; nobody else is told.
        origin: The socket that sent it, which is not told.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    chat_id: Annotated[str, StringConstraints(pattern=ID_PATTERN)]
    from_seq: Seq
    to_seq: Seq
    members: list[NotBlank]
    origin: str = ""
    is_deleted: bool = False

    @classmethod
    def of_range(
        cls, chat_id: str, first: int, last: int, *, members: Iterable[str], origin: str = ""
    ) -> ChatEvent:
        """Return an event of our own making: what it is made of was validated before."""
        return cls.model_construct(
            chat_id=chat_id, from_seq=first, to_seq=last, members=list(members), origin=origin
        )

    @classmethod
    def of_sent(cls, chat_id: str, sent: SendResult, *, origin: str = "") -> ChatEvent:
        return cls.of_range(
            chat_id, sent.from_seq, sent.to_seq, members=sent.members, origin=origin
        )

    @classmethod
    def of_deletion(cls, chat_id: str, *, head: int, members: Iterable[str]) -> ChatEvent:
        """Return the event of a deleted chat in which `head` was the last number."""
        return cls.model_construct(
            chat_id=chat_id, from_seq=head + 2, to_seq=head + 2, members=list(members),
            is_deleted=True,
        )  # fmt: skip


class EventBatch(BaseModel):
    """One message on the channel layer: events of one instance; none is a sign of life."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: str = TYPE
    instance: NotBlank
    events: list[dict[str, Any]]


class Layer(Protocol):
    """What we use of a channel layer."""

    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def flush(self) -> None: ...


class Fanout:
    """One subscription to the channel layer for all sockets of one event loop.

    Attributes:
        deliver: Called with each event, of this process and of the others.
        heard_late: Called when we hear the others after somebody has given up waiting for it.
        is_lasting: Its loop serves. Any other ends with the call that publishes.
        silent_until: Of the process: no call waits for Redis before this instant.
    """

    silent_until: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.is_lasting = False
        self.id = ids.nanoid()
        self.deliver: Callable[[ChatEvent], None] = lambda _: None
        self.heard_late: Callable[[], None] = lambda: None
        self._layer = cast("Layer", get_channel_layer())
        self._waiting: deque[ChatEvent] = deque(maxlen=MAX_WAITING)
        self._publishing: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._is_heard = True
        self._is_late = False

    async def ready(self) -> None:
        """Wait until this process hears the others, or until it is known that it cannot."""
        self.is_lasting = True
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        if not self._decided.is_set():
            try:
                async with asyncio.timeout(READY_S):
                    await self._decided.wait()
            except TimeoutError:
                self._is_late = True

    async def restart(self) -> None:
        """Subscribe again at once, instead of when the layer notices that its connection died."""
        if self._listening is not None:
            await self._stop_listening()
            self._decided.clear()
            self._is_heard = True
            await self.ready()

    def publish(self, event: ChatEvent) -> None:
        """Deliver here, and tell the other instances soon; with too many waiting, the oldest go."""
        self.deliver(event)
        self._waiting.append(event)
        if self._publishing is None:
            self._publishing = asyncio.get_running_loop().create_task(self._publish())

    async def published(self) -> None:
        """Wait until the other instances were told, or Redis turned out to be away."""
        if self._publishing is not None:
            await asyncio.wait([self._publishing], timeout=PUBLISH_S)

    async def check(self) -> None:
        """Find out whether we still hear ourselves; subscribe again if the last check was lost."""
        if not self._is_heard:
            await self.restart()
        self._is_heard = False
        await self._send([])

    async def close(self) -> None:
        await self.published()
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
                await self._layer.group_add(GROUP, channel)
                await self._layer.group_send(GROUP, self._batch([]))
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
            batch = EventBatch.model_validate(message)
            if batch.instance == self.id:
                self._is_heard = True
                self._decided.set()
                if self._is_late:
                    self._is_late = False
                    self.heard_late()
                return
            found = [ChatEvent.model_validate(event) for event in batch.events]
        except ValidationError:
            # From another version, or from somebody who should not write here.
            logger.warning("Ignored an event that could not be read")
            return
        for event in found:
            self.deliver(event)

    def _batch(self, events: list[ChatEvent]) -> dict[str, Any]:
        return EventBatch(
            instance=self.id, events=[event.model_dump() for event in events]
        ).model_dump()

    async def _publish(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MAX_BATCH)
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._publishing = None

    async def _send(self, events: list[ChatEvent]) -> None:
        try:
            async with asyncio.timeout(PUBLISH_S):
                await self._layer.group_send(GROUP, self._batch(events))
            Fanout.silent_until = 0.0
        except AWAY:
            Fanout.silent_until = time.monotonic() + SILENT_S
            logger.warning("Unable to tell other instances", extra={"events": len(events)})


_fanouts = PerLoop(Fanout)


def current() -> Fanout:
    """Return this loop's bus."""
    return _fanouts.get()


async def close() -> None:
    """Tell what was not told yet, and let go of the channel layer; called once, at shutdown."""
    if fanout := _fanouts.pop():
        await fanout.close()


def publish_on_commit(event: ChatEvent) -> None:
    """Publish from synchronous code, once and if the caller's transaction commits."""
    # An event is a hint: what has committed does not fail because nobody could be told.
    transaction.on_commit(lambda: async_to_sync(_publish)(event), robust=True)


def publish_deletion(chat: Chat) -> None:
    """Publish that a chat was deleted, with the transaction that does it and holds its lock."""
    members = membership.user_ids(chat.pk)
    publish_on_commit(ChatEvent.of_deletion(chat.pk, head=chat.last_seq, members=members))


async def _publish(event: ChatEvent) -> None:
    """Publish in the loop that serves; in a command that is one which ends with this call."""
    fanout = current()
    if fanout.is_lasting:
        fanout.publish(event)
    elif time.monotonic() >= fanout.silent_until:
        fanout.publish(event)
        await fanout.published()
