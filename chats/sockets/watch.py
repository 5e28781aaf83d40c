"""The head watch and the credentials watch: what no event told us, looked up every 25 seconds.

One statement finds the chats that have come further than this process has delivered or were
deleted, one finds the callers who do not stand any more. Without sockets nothing is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Final

from accounts import revalidation
from airi_server.kernel import database
from chats import messages
from chats.fanout import ChatEvent, Fanout
from chats.messages import Head
from chats.sockets.deliveries import Deliveries
from chats.sockets.outbox import Registry
from chats.sockets.protocol import CloseCode

logger = logging.getLogger(__name__)

EVERY_S: Final = 25.0
SKEW_S: Final = 10.0
"""The clocks of this process and the database may differ by so much; also, a transaction's time
is that of its lock, and it commits a little later."""
OVERLAP_S: Final = 30.0
PAUSE_S: Final = 1.0
"""Between two looks, however many reasons there are."""


class Watch:
    """Looks regularly, and soon after `look_soon`."""

    def __init__(self, registry: Registry, deliveries: Deliveries, fanout: Fanout) -> None:
        self._registry = registry
        self._deliveries = deliveries
        self._fanout = fanout
        self._task: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()
        self._wants_heads = False
        self._reconnected = False
        self._looked_at = 0.0

    def start(self) -> None:
        """Begin with the first socket; from here on, what happens is to be delivered."""
        if self._task is None:
            self._looked_at = time.time()
            self._reconnected = False
            self._task = asyncio.get_running_loop().create_task(self._look_forever())

    def look_soon(self, *, reconnected: bool = False) -> None:
        """Look at credentials; after a reconnection at the heads too, for what was missed."""
        self._reconnected |= reconnected
        self._hint.set()

    def look_at_heads_soon(self) -> None:
        """Look for what was missed while this process did not hear the others yet."""
        self._wants_heads = True
        self._hint.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        heads_due = loop.time() + EVERY_S
        while True:
            try:
                async with asyncio.timeout(heads_due - loop.time()):
                    await self._hint.wait()
                await asyncio.sleep(PAUSE_S)
            except TimeoutError:
                self._wants_heads = True
            self._hint.clear()
            if self._wants_heads:
                heads_due = loop.time() + EVERY_S
            await self._look()

    async def _look(self) -> None:
        wants_heads, self._wants_heads = self._wants_heads, False
        reconnected, self._reconnected = self._reconnected, False
        try:
            if reconnected:
                await self._fanout.restart()
            elif wants_heads:
                await self._fanout.check()
            await self.look_at_callers()
            if wants_heads or reconnected:
                await self.look_at_heads()
        except database.AWAY:
            logger.warning("Unable to look at chats: the database is away")
        except Exception:
            logger.exception("Unable to look at chats")

    async def look_at_callers(self) -> None:
        """Close the sockets of those who would be refused now."""
        sockets = self._registry.all()
        callers = {socket.caller for socket in sockets if socket.caller is not None}
        if not callers:
            return
        fallen = await revalidation.fallen(callers, at=datetime.now(UTC))
        for socket in sockets:
            if socket.caller in fallen:
                socket.close(CloseCode.UNAUTHORIZED, "unauthorized")
                self._registry.discard(socket)

    async def look_at_heads(self) -> None:
        """Push what the chats of our users have and no event has brought."""
        started = time.time()
        if not self._registry.count:
            self._looked_at = started
            self._deliveries.delivered.clear()
            self._deliveries.closed.clear()
            return
        known, closed = self._deliveries.heads(), set(self._deliveries.closed)
        within_s = round(started - self._looked_at + SKEW_S + OVERLAP_S)
        found = await messages.heads(user_ids=list(self._registry.users), within_s=within_s)
        by_chat: defaultdict[str, list[Head]] = defaultdict(list)
        for head in found:
            by_chat[head.chat_id].append(head)
        for chat_id, heads in by_chat.items():
            await self._catch_up(chat_id, heads)
        self._deliveries.forget_closed(closed - by_chat.keys())
        self._deliveries.forget({c: seq for c, seq in known.items() if c not in by_chat})
        self._looked_at = started

    async def _catch_up(self, chat_id: str, heads: list[Head]) -> None:
        user_ids = [head.user_id for head in heads]
        if any(head.is_deleted for head in heads):
            head = max(head.seq for head in heads)
            self._deliveries.accept(ChatEvent.of_deletion(chat_id, head=head, members=user_ids))
            return
        joined = min((s.joined_ms for s in self._registry.of(user_ids)), default=None)
        if joined is None:
            return
        since_ms = max(joined, round(self._looked_at * 1000)) - round(SKEW_S * 1000)
        head = min(head.seq for head in heads)
        await self._deliveries.catch_up(
            chat_id=chat_id, head=head, user_ids=user_ids, since_ms=since_ms
        )
