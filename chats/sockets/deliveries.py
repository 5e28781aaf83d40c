"""From an event to frames on sockets: rows are read once, and each frame is written once.

Events of one chat are delivered one after the other; what arrives during a read shares the next.
Neighboring events share a frame: a busy chat gets fewer and longer frames instead of more of them,
which is what a push costs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import (
    AsyncIterator,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Final, NamedTuple

from airi_server.kernel import database
from chats import messages
from chats.fanout import ChatEvent
from chats.messages import Page
from chats.models import MAX_MESSAGES
from chats.ranges import Range, Ranges
from chats.sockets import envelopes
from chats.sockets.outbox import Registry
from chats.sockets.protocol import NewMessages

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
READS_AT_ONCE: Final = 4
"""The pool is shared with paid requests."""
MAX_SHARED: Final = 100
"""Numbers that different events may share one read for."""
MAX_CATCH_UP: Final = 20
"""Pages for one chat and look; what is older than that is the clients' to pull."""


class Push(NamedTuple):
    """A frame, and the numbers it is about."""

    text: str
    first: int
    last: int


class Pushes:
    """The frames of one page, each written for the first who gets it.

    Args:
        first: The number the page begins with; it ends with its own.
    """

    def __init__(self, chat_id: str, first: int, page: Page) -> None:
        self.chat_id = chat_id
        self._first = first
        self._page = page
        self._written: dict[Range, Push | None] = {}

    def of(self, ranges: Iterable[Range]) -> Iterator[Push]:
        """Yield a frame for each range that has something in the page.

        What was numbered again since is not there; its own event brings it.
        """
        for wanted in ranges:
            if wanted not in self._written:
                self._written[wanted] = self._write(*wanted)
            push = self._written[wanted]
            if push is not None:
                yield push

    def _write(self, first: int, last: int) -> Push | None:
        first, last = max(first, self._first), min(last, self._page.seq)
        new = tuple(row for row in self._page.messages if first <= row.seq <= last)
        gone = tuple(row for row in self._page.deleted if first <= row.seq <= last)
        if not new and not gone:
            return None
        body = {
            "chat_id": self.chat_id,
            "messages": new,
            "from_seq": first,
            "to_seq": last,
            "deleted": gone,
        }
        return Push(envelopes.push(NewMessages.model_validate(body)), first, last)


class Deliveries:
    """Delivers events to the sockets of this loop, and remembers what it has delivered."""

    def __init__(self, registry: Registry) -> None:
        self.delivered: dict[str, Ranges] = {}
        self.closed: set[str] = set()
        self._registry = registry
        self._waiting: dict[str, list[ChatEvent]] = {}
        self._count = 0
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, event: ChatEvent) -> None:
        """Deliver soon. An event that cannot be kept is left to the head watch."""
        if event.is_deleted:
            self._push_deletion(event)
            return
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
        steps = list(self._steps(chat_id, head))
        # Before the reads, so that an event that comes during them is not delivered beside us.
        self._ranges(chat_id).add(1, head)
        found: list[tuple[int, Page]] = []
        try:
            for first, last in steps:
                found += reversed(await self._latest(chat_id, first, last, MAX_CATCH_UP))
                if len(found) >= MAX_CATCH_UP or _newest_before(since_ms, found):
                    break
        except database.AWAY:  # after anything else it would fail again at every look
            for first, last in steps:
                self._ranges(chat_id).remove(first, last)
            raise
        del found[MAX_CATCH_UP:]
        old = _newest_before(since_ms, found)
        for first, page in reversed(found):
            start = max(first, old + 1)
            event = ChatEvent.of_range(chat_id, start, page.seq, members=user_ids)
            self._hand_out([event], Pushes(chat_id, first, page))

    def forget_closed(self, chat_ids: Collection[str]) -> None:
        """Forget deleted chats that nobody will ask about again."""
        self.closed.difference_update(chat_ids)

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

    def _push_deletion(self, event: ChatEvent) -> None:
        """Tell the sockets of the members that a chat was deleted; once, until `forget_closed`."""
        if event.chat_id in self.closed:
            return
        self.closed.add(event.chat_id)
        text = envelopes.push(
            NewMessages(
                chat_id=event.chat_id, messages=(), from_seq=event.from_seq, to_seq=event.to_seq
            )
        )
        for socket in self._registry.of(event.members):
            socket.push(text)

    async def _drain(self, chat_id: str) -> None:
        waiting = self._waiting[chat_id]
        try:
            while waiting:
                await self._deliver(chat_id, _taken(waiting))
        finally:
            self._count -= len(waiting)
            del self._waiting[chat_id]

    async def _deliver(self, chat_id: str, batch: Sequence[ChatEvent]) -> None:
        self._count -= len(batch)
        try:
            head = max(event.to_seq for event in batch)
            async for first, page in self._pages(chat_id, batch[0].from_seq, head):
                pushes = Pushes(chat_id, first, page)
                for run in runs(batch):
                    self._hand_out(run, pushes)
        except Exception as failure:
            # What was not delivered counts as missing: the head watch brings it.
            for event in batch:
                self._ranges(chat_id).remove(event.from_seq, event.to_seq)
            if isinstance(failure, database.AWAY):
                logger.warning("Unable to read what to push", extra={"events": len(batch)})
            else:
                logger.exception("Unable to push")

    async def _pages(self, chat_id: str, first: int, last: int) -> AsyncIterator[tuple[int, Page]]:
        """Yield what is in a range, page by page, each after the number it begins with."""
        while first <= last:
            async with self._reads:
                page = await messages.between(chat_id=chat_id, from_seq=first, to_seq=last)
            yield first, page
            first = page.seq + 1

    async def _latest(
        self, chat_id: str, first: int, last: int, count: int
    ) -> deque[tuple[int, Page]]:
        """Return the last pages of a range, which is all of it unless its messages are long."""
        found: deque[tuple[int, Page]] = deque(maxlen=count)
        async for first_and_page in self._pages(chat_id, first, last):
            found.append(first_and_page)
        return found

    def _hand_out(self, run: Sequence[ChatEvent], pushes: Pushes) -> None:
        """Push what neighboring events have in a page; a sender only gets what others sent."""
        origins = {event.origin for event in run}
        everything = [(run[0].from_seq, run[-1].to_seq)]
        for socket in self._registry.of(run[0].members):
            is_sender = socket.id in origins
            for push in pushes.of(ranges_for(run, socket.id) if is_sender else everything):
                if socket.push(push.text):
                    socket.knowledge.learn(pushes.chat_id, push.first, push.last)

    def _steps(self, chat_id: str, head: int) -> Iterator[tuple[int, int]]:
        """Yield what is missing up to the head, the newest first, in bounded steps."""
        steps = 0
        for first, last in self._ranges(chat_id).missing(head):
            for end in range(last, first - 1, -MAX_MESSAGES):
                if steps == MAX_CATCH_UP:
                    return
                steps += 1
                yield max(first, end - MAX_MESSAGES + 1), end


def runs(events: Sequence[ChatEvent]) -> Iterator[list[ChatEvent]]:
    """Yield events of one chat, ascending, in groups without a gap that have the same members."""
    run: list[ChatEvent] = []
    for event in events:
        if run and (event.from_seq != run[-1].to_seq + 1 or event.members != run[-1].members):
            yield run
            run = []
        run.append(event)
    if run:
        yield run


def ranges_for(run: Sequence[ChatEvent], socket_id: str) -> list[Range]:
    """Return what one socket is to get of a run: all of it but what it has sent itself."""
    ranges: list[Range] = []
    for event in run:
        if event.origin == socket_id:
            continue
        if ranges and ranges[-1][1] + 1 == event.from_seq:
            ranges[-1] = (ranges[-1][0], event.to_seq)
        else:
            ranges.append((event.from_seq, event.to_seq))
    return ranges


def _taken(waiting: list[ChatEvent]) -> list[ChatEvent]:
    """Take the next events that one read can serve, in the order of their numbers."""
    waiting.sort(key=lambda event: event.from_seq)
    first, count = waiting[0].from_seq, 1
    while count < len(waiting) and waiting[count].to_seq - first < MAX_SHARED:
        count += 1
    taken = waiting[:count]
    del waiting[:count]
    return taken


def _newest_before(since_ms: int, pages: Iterable[tuple[int, Page]]) -> int:
    """Return the highest number of a message that is older, or 0.

    A tombstone has no time of its own: it is as young as its neighbors.
    """
    rows = (row for _, page in pages for row in page.messages)
    return max((row.seq for row in rows if row.updated_at < since_ms), default=0)
