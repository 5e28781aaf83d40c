"""The load on one chat, in a process of its own: sends, receives, and counts every number.

Closed loop (each sender keeps a window of calls open) or paced. The plan comes as JSON on
standard input, the outcome leaves as JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson
import uvloop

from airi_server.launch import processes
from tests.bench.chat import wire
from tests.bench.goals import percentile

SEND: Final = "chat:send-messages"
PUSH: Final = "chat:new-messages"
_LATE_S: Final = 20.0
_KEPT_FRAMES: Final = 4_096
_TEXT: Final = "Why is the sea salt, and has it always been so? Ask again tomorrow, perhaps. "


@dataclass(frozen=True, slots=True)
class Plan:
    """Who sends and receives what. `head` is the chat's number before the first message.

    Args:
        window: Calls each sender keeps open; ignored when paced.
        per_second: Messages a second of all senders together; 0 is as many as are answered.
    """

    host: str
    port: int
    chat_id: str
    receivers: list[str]
    senders: list[str]
    seconds: float
    head: int
    window: int = 16
    per_second: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What happened. Times are [p50, p95, p99] in milliseconds; `faults` is empty if all is well.

    Attributes:
        deliveries: Messages that sockets received, one for each message and socket.
    """

    messages: int = 0
    deliveries: int = 0
    frames: int = 0
    head: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    push_ms: list[float] = field(default_factory=list)
    send_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Push:
    """A frame that was read: the numbers in it, and when each of its messages was due."""

    seqs: array[int]
    due: list[float]


class Load:
    """The state all sockets share. The same frame comes to all of them and is read once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.due: dict[str, float] = {}
        self.acked: dict[str, int] = {}
        self.push_s, self.send_s = array("d"), array("d")
        self.frames = 0
        self.faults: list[str] = []
        self.ids: dict[int, str] = {}
        self._read: dict[bytes, Push] = {}

    async def run(self) -> Outcome:
        plan = self.plan
        sockets = [Socket(self) for _ in plan.receivers]
        senders = [Sender(self, number) for number in range(len(plan.senders))]
        for socket, key in zip([*sockets, *senders], [*plan.receivers, *plan.senders], strict=True):
            await socket.open(key)
        everybody = [*sockets, *senders]
        cpu, began = time.process_time(), time.perf_counter()
        await (self._pace(senders) if plan.per_second else self._flood(senders))
        await self._settle(everybody)
        outcome = Outcome(messages=len(self.acked), frames=self.frames)
        outcome.seconds = time.perf_counter() - began
        outcome.cpu_s = time.process_time() - cpu
        outcome.head = plan.head + len(self.acked)
        outcome.deliveries = sum(len(socket.seen) for socket in everybody)
        outcome.push_ms, outcome.send_ms = percentiles(self.push_s), percentiles(self.send_s)
        outcome.faults = [*self.faults, *self._faults(everybody)][:10]
        return outcome

    def push_of(self, payload: bytes, frame: Any) -> Push:
        known = self._read.get(payload)
        if known is not None:
            return known
        body = frame["payload"]["body"]
        found = body["messages"]
        seqs = array("q", [one["seq"] for one in found])
        if list(seqs) != list(range(body["fromSeq"], body["toSeq"] + 1)):
            self.fault(f"a push from {body['fromSeq']} to {body['toSeq']} holds {list(seqs)}")
        for one in found:
            if self.ids.setdefault(one["seq"], one["id"]) != one["id"]:
                self.fault(f"number {one['seq']} belongs to two messages")
        push = Push(seqs, [self.due.get(one["id"], 0.0) for one in found])
        if len(self._read) >= _KEPT_FRAMES:
            self._read.clear()
        self._read[payload] = push
        return push

    def known(self, payload: bytes) -> Push | None:
        return self._read.get(payload)

    def fault(self, what: str) -> None:
        if len(self.faults) < 10:
            self.faults.append(what)

    async def _flood(self, senders: list[Sender]) -> None:
        until = time.perf_counter() + self.plan.seconds
        lanes = [sender.repeat(until) for sender in senders for _ in range(self.plan.window)]
        await asyncio.gather(*lanes)

    async def _pace(self, senders: list[Sender]) -> None:
        """Send by the clock: who waits for a late answer does not wait with the next message."""
        began, calls = time.perf_counter(), []
        for number in range(round(self.plan.seconds * self.plan.per_second)):
            due = began + number / self.plan.per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sender = senders[number % len(senders)]
            calls.append(asyncio.ensure_future(sender.say(due)))
        await asyncio.gather(*calls)

    async def _settle(self, sockets: list[Socket]) -> None:
        """Wait until everybody has what was sent, or will not get it any more."""
        until = time.perf_counter() + _LATE_S
        while time.perf_counter() < until:
            if all(len(s.seen) >= len(self.acked) - len(s.own) for s in sockets):
                break
            await asyncio.sleep(0.005)

    def _faults(self, sockets: list[Socket]) -> list[str]:
        head = self.plan.head
        whole = range(head + 1, head + len(self.acked) + 1)
        faults = []
        if sorted(self.acked.values()) != list(whole):
            faults.append("the numbers that were answered are not dense")
        if any(self.ids.get(seq, id_) != id_ for id_, seq in self.acked.items()):
            faults.append("a push and an answer number the same message differently")
        for number, socket in enumerate(sockets):
            if list(socket.seen) != [seq for seq in whole if seq not in socket.own]:
                lost = len(set(whole) - socket.own - set(socket.seen))
                faults.append(
                    f"socket {number}: {len(socket.seen)} of {len(whole) - len(socket.own)} "
                    f"numbers, {lost} lost, {len(socket.seen) - len(set(socket.seen))} doubled"
                )
        return faults


class Socket:
    """Receives; `seen` are the numbers in their order."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.seen = array("q")
        self.own: set[int] = set()

    async def open(self, key: str) -> None:
        plan = self.load.plan
        self.line = await wire.dial(plan.host, plan.port, f"/ws/chat?token={key}", self.take)

    def take(self, payload: bytes) -> None:
        push = self.load.known(payload)
        if push is None:
            frame = orjson.loads(payload)
            if frame["type"] != PUSH:
                self.other(frame)
                return
            push = self.load.push_of(payload, frame)
        now = time.perf_counter()
        self.load.frames += 1
        self.seen.extend(push.seqs)
        for due in push.due:
            self.load.push_s.append(now - due)

    def other(self, frame: Any) -> None:
        """Take what is no push."""


class Sender(Socket):
    """Sends too; one's own messages are not pushed to the socket that sent them."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(load)
        self._name = f"{load.plan.chat_id}-{load.plan.head}-{number}"
        self._sent = 0
        self._calls: dict[str, asyncio.Future[int]] = {}

    async def repeat(self, until: float) -> None:
        while time.perf_counter() < until:
            await self.say(time.perf_counter())

    async def say(self, due: float) -> None:
        """Send one message and wait for its number."""
        self._sent += 1
        id_ = f"{self._name}-{self._sent}"
        self.load.due[id_] = due
        answer = self._calls[id_] = asyncio.get_running_loop().create_future()
        new = [{"id": id_, "role": "user", "content": _TEXT}]
        content = {"chatId": self.load.plan.chat_id, "messages": new}
        body = {"invokeId": id_, "content": content}
        self.line.send(orjson.dumps({"type": f"{SEND}-send", "payload": {"body": body}}))
        try:
            async with asyncio.timeout(_LATE_S):
                seq = await answer
        except (TimeoutError, ValueError) as failed:
            self.load.fault(f"a send was not answered: {failed!r}")
            return
        self.load.send_s.append(time.perf_counter() - due)
        self.load.acked[id_] = seq
        self.own.add(seq)

    def other(self, frame: Any) -> None:
        body = frame["payload"].get("body") or {}
        answer = self._calls.pop(body.get("invokeId", ""), None)
        if answer is None or answer.done():
            return
        if "error" in body["content"]:
            answer.set_exception(ValueError(body["content"]["error"]))
        else:
            answer.set_result(body["content"]["seq"])


def percentiles(seconds: array[float]) -> list[float]:
    """Return p50, p95 and p99 in milliseconds."""
    return [1000 * percentile(seconds, share) for share in (0.5, 0.95, 0.99)]


async def _run(plan: dict[str, Any]) -> Outcome:
    return await Load(Plan(**plan)).run()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    processes.die_with_parent(signal.SIGKILL, parent=parser.parse_args().parent)
    outcome = uvloop.run(_run(orjson.loads(sys.stdin.buffer.read())))
    sys.stdout.buffer.write(orjson.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
