"""The load: a closed loop over N connections in a process of its own, bounded in time and number.

Each connection sends its next request when the last answer is complete. Answers that are not
complete, not 200, or not what the case expects are counted, never forgotten. The plan comes as
JSON on standard input, the outcome leaves as JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import orjson
import uvloop

from airi_server.launch import processes
from tests.bench import upstream
from tests.bench.goals import percentile
from tests.bench.stamps import Delays

JSON: Final = "json"
STREAM: Final = "stream"
BALANCE: Final = "balance"
PACED: Final = "paced"
_LATE_S: Final = 20.0
_MOST_ERRORS: Final = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where. `requests` are whole HTTP requests; connection i repeats i modulo.

    The first of the connections go to the first of the ports, and so on. They begin one after the
    other, within `spread_s`.
    """

    host: str
    ports: list[int]
    requests: list[str]
    expects: str
    connections: int
    seconds: float
    most: int = 1_000_000
    spread_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What came back. `complete` counts the answers that were 200 and whole; times are in ms.

    `delays` is only of paced streams: how long after it was written a chunk was here.
    """

    complete: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    first_p50: float = 0.0
    delays: dict[str, float] = field(default_factory=dict)
    sample: str = ""

    @property
    def rate(self) -> float:
        return self.complete / self.seconds if self.seconds else 0.0


def is_whole(body: bytes, expects: str) -> bool:
    """Tell whether a body of status 200 is what was ordered, to its last byte."""
    if expects in (STREAM, PACED):
        frames = body.count(b'"delta"')
        least = upstream.PACED_CHUNKS if expects == PACED else upstream.CHUNKS
        return frames >= least and body.rstrip().endswith(b"data: [DONE]")
    wanted = b'"finish_reason"' if expects == JSON else b'"flux"'
    return wanted in body and body.endswith(b"}")


class Load:
    """The state all connections share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.outcome = Outcome()
        self.statuses: Counter[int] = Counter()
        self.took = array("d")
        self.first = array("d")
        self.first_late = array("d")
        self.later_late = array("d")
        self.sent = 0
        self.open = 0
        self.redialing: list[asyncio.Task[None]] = []
        self.stopping = False
        self.finished = self.loop.create_future()

    async def run(self) -> Outcome:
        connections = [await self._dial(number) for number in range(self.plan.connections)]
        cpu, began = time.process_time(), time.perf_counter()
        self.loop.call_later(self.plan.seconds, self.stop)
        for number, connection in enumerate(connections):
            self.loop.call_later(number * self.plan.spread_s / len(connections), connection.ask)
        try:
            await asyncio.wait_for(self.finished, self.plan.seconds + _LATE_S)
        except TimeoutError:
            self.outcome.broken += self.open
        outcome = self.outcome
        outcome.seconds = time.perf_counter() - began
        outcome.cpu_s = time.process_time() - cpu
        outcome.statuses = {str(status): count for status, count in self.statuses.items()}
        outcome.p50, outcome.p99 = _ms(self.took, 0.50), _ms(self.took, 0.99)
        outcome.first_p50 = _ms(self.first, 0.50)
        if self.first_late:
            outcome.delays = self._delays()
        return outcome

    def _delays(self) -> dict[str, float]:
        late = {"first": self.first_late, "later": self.later_late}
        shares = {"p50": 0.50, "p99": 0.99, "worst": 1.0}
        found = {
            f"{which} {name}": _ms(values, share)
            for which, values in late.items()
            for name, share in shares.items()
        }
        return {**found, "chunks": len(self.first_late) + len(self.later_late)}

    def stop(self) -> None:
        self.stopping = True

    def may_ask(self) -> bool:
        return not self.stopping and self.sent < self.plan.most

    def note_broken(self, what: str) -> None:
        self.outcome.broken += 1
        self.outcome.sample = self.outcome.sample or what[:300]
        if self.outcome.broken >= _MOST_ERRORS:
            self.stop()

    def leave(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.finished.done():
            self.finished.set_result(None)

    async def _dial(self, number: int) -> Connection:
        request = self.plan.requests[number % len(self.plan.requests)].encode()
        port = self.plan.ports[number * len(self.plan.ports) // self.plan.connections]
        connection = Connection(self, request, port)
        self.open += 1
        await self.dial(connection)
        return connection

    async def dial(self, connection: Connection) -> None:
        await self.loop.create_connection(lambda: connection, self.plan.host, connection.port)


class Connection(asyncio.Protocol):
    """One client: asks, reads to the end, checks, asks again."""

    def __init__(self, load: Load, request: bytes, port: int) -> None:
        self.port = port
        self._load = load
        self._request = request
        self._is_paced = load.plan.expects == PACED
        self._waiting = False
        self._asked_at = 0.0
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        if not self._load.may_ask():
            self._transport.close()
            self._load.leave()
            return
        self._load.sent += 1
        self._begin()
        self._waiting = True
        self._asked_at = time.perf_counter()
        self._transport.write(self._request)

    def _begin(self) -> None:
        self._buffer = b""
        self._body_at = 0
        self._delays = Delays()
        self._need: int | None = None  # None: chunked, until the last chunk says so

    def data_received(self, data: bytes) -> None:
        if self._is_paced:
            self._delays.read(data, self._load.first_late, self._load.later_late)
        self._buffer = self._buffer + data if self._buffer else data
        if not self._body_at and not self._read_head():
            return
        body = self._whole_body()
        if body is not None:
            self._end(body)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._load.first.append(time.perf_counter() - self._asked_at)
        self._body_at = end + 4
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            self._need = self._body_at + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return True

    def _whole_body(self) -> bytes | None:
        if self._need is not None:
            is_there = len(self._buffer) >= self._need
            return self._buffer[self._body_at : self._need] if is_there else None
        may_be_last = self._buffer.endswith(b"0\r\n\r\n")
        return _decoded(self._buffer, self._body_at) if may_be_last else None

    def _end(self, body: bytes) -> None:
        load, status = self._load, int(self._buffer[9:12])
        self._waiting = False
        load.took.append(time.perf_counter() - self._asked_at)
        load.statuses[status] += 1
        if status == 200 and is_whole(body, load.plan.expects):
            load.outcome.complete += 1
        else:
            load.note_broken(f"{status} {body[-250:].decode(errors='replace')}")
        self.ask()

    def connection_lost(self, _exc: Exception | None) -> None:
        load = self._load
        if self._waiting:
            self._waiting = False
            load.note_broken("the connection was lost")
            load.redialing.append(load.loop.create_task(self._again()))

    async def _again(self) -> None:
        try:
            await self._load.dial(self)
        except OSError:
            self._load.leave()
        else:
            self.ask()


def _decoded(raw: bytes, at: int) -> bytes | None:
    """Undo the chunked encoding; None if the last chunk is not there yet."""
    parts: list[bytes] = []
    while (line := raw.find(b"\r\n", at)) > 0:
        size = int(raw[at:line].split(b";", 1)[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(raw[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return None


def _ms(seconds: array[float], share: float) -> float:
    return 1000 * percentile(seconds, share)


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
