"""From an event to frames on sockets: rows are read once, a frame is written once.

Events of one chat are delivered one after the other; what arrives during a read shares the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from airi_server.kernel import database
from chats import envelopes, messages
from chats.events import Sent
from chats.messages import Deleted, Page, WireMessage
from chats.protocol import MAX_CONTENT_BYTES_OUT, MAX_MESSAGES, NewMessages
from chats.ranges import Ranges
from chats.sockets import Registry

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
READS_AT_ONCE: Final = 4
"""The pool is shared with paid requests."""
MAX_SHARED: Final = 100
"""Numbers that different events may share one read for."""
MAX_CATCH_UP: Final = 20
"""Reads for one chat and look; what is older than that is the clients' to pull."""


class Deliveries:
    """Delivers events to the sockets of this loop, and remembers what it has delivered."""

    def __init__(self, registry: Registry) -> None:
        self.delivered: dict[str, Ranges] = {}
        self._registry = registry
        self._waiting: dict[str, list[Sent]] = {}
        self._count = 0
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, event: Sent) -> None:
        """Deliver soon. An event that cannot be kept is left to the head watch."""
        if self._count >= MAX_WAITING or not self._registry.of(event.members):
            return
        ranges = self._ranges(event.chat_id)
        if ranges.has(event.from_seq, event.to_seq):
            return  # the head watch was faster
        self._count += 1
        ranges.add(event.from_seq, event.to_seq)
        waiting = self._waiting.get(event.chat_id)
        if waiting is None:
            self._waiting[event.chat_id] = [event]
            self._own(self._drain(event.chat_id))
        else:
            waiting.append(event)

    async def catch_up(
        self, *, chat_id: str, head: int, user_ids: Collection[str], since_ms: int
    ) -> None:
        """Push to these members what the chat has up to `head` and no event has brought.

        Goes back from the head as far as rows are not older than `since_ms`; what is older was
        there when the sockets joined, or when somebody last looked.

        Raises:
            psycopg.OperationalError, PoolTimeout: The database is away.
        """
        found: list[tuple[Sent, Page]] = []
        for first, last in self._steps(chat_id, head):
            async with self._reads:
                page = await messages.between(chat_id=chat_id, from_seq=first, to_seq=last)
            # A tombstone has no time of its own: it is as young as its neighbors.
            old = max((row.seq for row in page.messages if row.updated_at < since_ms), default=0)
            found.append((_told(chat_id, max(first, old + 1), last, user_ids), page))
            if old:
                break
        self._ranges(chat_id).add(1, head)
        for event, page in reversed(found):
            self._hand_out(event, page)

    def heads(self) -> dict[str, int]:
        """Return how far each chat has come that something was delivered of."""
        return {chat_id: ranges.head for chat_id, ranges in self.delivered.items()}

    def forget(self, quiet: Mapping[str, int]) -> None:
        """Forget chats in which nothing has happened since they were seen at these heads."""
        for chat_id, head in quiet.items():
            if self._ranges(chat_id).head == head:
                del self.delivered[chat_id]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ranges(self, chat_id: str) -> Ranges:
        return self.delivered.setdefault(chat_id, Ranges())

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, chat_id: str) -> None:
        waiting = self._waiting[chat_id]
        try:
            while waiting:
                await self._deliver(chat_id, _taken(waiting))
        finally:
            self._count -= len(waiting)
            del self._waiting[chat_id]

    async def _deliver(self, chat_id: str, batch: Sequence[Sent]) -> None:
        self._count -= len(batch)
        try:
            head = max(event.to_seq for event in batch)
            for first in range(batch[0].from_seq, head + 1, MAX_MESSAGES):
                last = min(first + MAX_MESSAGES - 1, head)
                async with self._reads:
                    page = await messages.between(chat_id=chat_id, from_seq=first, to_seq=last)
                for event in batch:
                    self._hand_out(_within(event, first, last), page)
        except database.AWAY:
            # What was not delivered counts as missing: the head watch brings it.
            for event in batch:
                self._ranges(chat_id).remove(event.from_seq, event.to_seq)
            logger.warning("Unable to read what to push", extra={"events": len(batch)})
        except Exception:
            logger.exception("Unable to push")

    def _hand_out(self, event: Sent, page: Page) -> None:
        """Write the frames of one event out of a page that may hold more."""
        sockets = [s for s in self._registry.of(event.members) if s.id != event.origin]
        if not sockets:
            return
        for new in _pushes(event, page):
            text = envelopes.push(new)
            for socket in sockets:
                socket.push(text)

    def _steps(self, chat_id: str, head: int) -> Iterator[tuple[int, int]]:
        """Yield what is missing up to the head, the newest first, in bounded steps."""
        steps = 0
        for first, last in self._ranges(chat_id).missing(head):
            for end in range(last, first - 1, -MAX_MESSAGES):
                if steps == MAX_CATCH_UP:
                    return
                steps += 1
                yield max(first, end - MAX_MESSAGES + 1), end


def _taken(waiting: list[Sent]) -> list[Sent]:
    """Take the next events that one read can serve, in the order of their numbers."""
    waiting.sort(key=lambda event: event.from_seq)
    first, count = waiting[0].from_seq, 1
    while count < len(waiting) and waiting[count].to_seq - first < MAX_SHARED:
        count += 1
    taken = waiting[:count]
    del waiting[:count]
    return taken


def _told(chat_id: str, first: int, last: int, user_ids: Collection[str]) -> Sent:
    """Return an event of our own making, which was validated where it came from."""
    return Sent.model_construct(
        chat_id=chat_id, from_seq=first, to_seq=last, members=list(user_ids), origin=""
    )


def _within(event: Sent, first: int, last: int) -> Sent:
    if first <= event.from_seq and event.to_seq <= last:
        return event
    return event.model_copy(
        update={"from_seq": max(first, event.from_seq), "to_seq": min(last, event.to_seq)}
    )


def _pushes(event: Sent, page: Page) -> Iterator[NewMessages]:
    """Yield what one event has in a page, split where it gets too long for one frame."""
    first, last = event.from_seq, event.to_seq
    rows: list[WireMessage | Deleted] = [*page.messages, *page.deleted]
    rows = sorted((r for r in rows if first <= r.seq <= last), key=lambda row: row.seq)
    chunk: list[WireMessage | Deleted] = []
    total = 0
    for row in rows:
        size = len(row.content.encode()) if isinstance(row, WireMessage) else 0
        if chunk and total + size > MAX_CONTENT_BYTES_OUT:
            yield _push(event.chat_id, chunk, first, row.seq - 1)
            first, chunk, total = row.seq, [], 0
        chunk.append(row)
        total += size
    if chunk:
        yield _push(event.chat_id, chunk, first, last)


def _push(
    chat_id: str, rows: Sequence[WireMessage | Deleted], from_seq: int, to_seq: int
) -> NewMessages:
    return NewMessages.model_validate(
        {
            "chat_id": chat_id,
            "messages": [row for row in rows if isinstance(row, WireMessage)],
            "from_seq": from_seq,
            "to_seq": to_seq,
            "deleted": [row for row in rows if isinstance(row, Deleted)],
        }
    )
