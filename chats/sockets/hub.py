"""All sockets of this process: who is here, who is told, and how the process lets go of them.

One hub for each event loop. Truth is PostgreSQL: what is pushed is a hint, and a client that
misses one is caught up with by the watch, or pulls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from accounts.revalidation import Caller
from airi_server.kernel import pubsub
from airi_server.kernel.loops import PerLoop
from airi_server.runtime import published
from chats import fanout, messages, telemetry
from chats.fanout import ChatEvent
from chats.sockets.deliveries import Deliveries
from chats.sockets.outbox import Outbox, Registry
from chats.sockets.protocol import CloseCode
from chats.sockets.watch import Watch

FINISH_S: Final = 5.0
"""How long calls that were under way may take when the process ends."""


class Hub:
    """The sockets of one event loop, and what serves them."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.deliveries = Deliveries(self.registry)
        self.fanout = fanout.current()
        self.fanout.deliver = self.deliveries.accept
        self.watch = Watch(self.registry, self.deliveries, self.fanout)
        self.fanout.heard_late = self.watch.look_at_heads_soon
        self.is_draining = False
        self._open: set[Outbox] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def opened(self, socket: Outbox) -> None:
        """Know a connection, whether somebody has authenticated on it or not."""
        self._open.add(socket)
        telemetry.counts.connections += 1
        if self.is_draining:
            socket.close(CloseCode.RESTARTING, "restarting")

    def closed(self, socket: Outbox) -> None:
        if socket in self._open:
            self._open.discard(socket)
            telemetry.counts.connections -= 1
        self.registry.discard(socket)
        telemetry.counts.users = len(self.registry.users)

    async def join(self, socket: Outbox, caller: Caller) -> None:
        """Deliver to a socket from now on; once this returns, what it pulls leaves no hole."""
        self.watch.start()
        self.registry.add(socket, caller)
        telemetry.counts.users = len(self.registry.users)
        await self.fanout.ready()

    def sent(self, chat_id: str, sent: messages.SendResult, *, origin: str) -> None:
        """Tell everybody in a chat what was committed, here and elsewhere, but not `origin`."""
        if not sent.is_new:
            return
        telemetry.messages_sent(sent.to_seq - sent.from_seq + 1)
        self.fanout.publish(ChatEvent.of_sent(chat_id, sent, origin=origin))

    def own(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a call to its end, also when its client leaves: what it commits is to be told."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def drain(self) -> None:
        """Let every client go and look for another instance."""
        self.is_draining = True
        for socket in list(self._open):
            socket.close(CloseCode.RESTARTING, "restarting")

    async def close(self) -> None:
        self.drain()
        if self._calls:
            await asyncio.wait(self._calls, timeout=FINISH_S)
        await self.watch.close()
        await self.deliveries.close()


_hubs = PerLoop(Hub)


def current() -> Hub:
    """Return this loop's hub."""
    return _hubs.get()


def drain() -> None:
    """Close this loop's sockets, and new ones as they come."""
    _hubs.get().drain()


async def close() -> None:
    """Finish what is under way; called once, at shutdown."""
    if hub := _hubs.pop():
        await hub.close()
    await fanout.close()


def _changed(facts: dict[str, Any]) -> None:
    if facts.get("name") == "credentials":
        current().watch.look_soon()


def _reconnected(_facts: dict[str, Any]) -> None:
    """Redis is back: events may have been lost while it was away."""
    current().watch.look_soon(reconnected=True)


pubsub.on(published.TOPIC, _changed)
pubsub.on(pubsub.CONNECTED, _reconnected)
