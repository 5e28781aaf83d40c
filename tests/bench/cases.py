"""The cases, and one run of one: load from outside, and what was counted before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from airi_server.launch import processes
from tests.bench import cpu
from tests.bench.books import Totals, Written
from tests.bench.load import BALANCE, JSON, PACED, STREAM, Outcome, Plan
from tests.bench.rig import Rig
from tests.bench.servers import Servers, spawn

MODEL: Final = "chat-default"
CHAT: Final = "/v1/chat/completions"
_PROMPT: Final = "Tell me, in a few words, why the sea is salt, and whether it has always been so."


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who speaks OpenAI's protocol.

    `headers` are whole lines to send as well, `pids` the processes whose CPU is the server's.
    """

    host: str
    ports: list[int]
    keys: list[str]
    model: str
    path: str = CHAT
    headers: Sequence[str] = ()
    pids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load. `users` of the keys take part; `note` goes into the request's text."""

    name: str
    expects: str
    connections: int
    users: int = 64
    note: str = ""
    spread_s: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.name} c={self.connections}"

    @property
    def unit(self) -> str:
        return "streams/s" if self.is_stream else "req/s"

    @property
    def is_stream(self) -> bool:
        return self.expects in (STREAM, PACED)


DIRECT: Final = Case("direct to the upstream", JSON, 1)
ONE: Final = Case("non-streaming", JSON, 1)
MANY: Final = Case("non-streaming", JSON, 64)
ONE_USER: Final = Case("non-streaming one user", JSON, 64, users=1)
STREAMS: Final = Case("streams", STREAM, 64)
STREAMS_AT_ONCE: Final = Case("streams written at once", STREAM, 64, note="at-once")
STREAM_ONE: Final = Case("streams", STREAM, 1)
DIRECT_STREAM: Final = Case("direct stream from the upstream", STREAM, 1)
PACED_STREAMS: Final = Case("paced streams", PACED, 500, note="paced", spread_s=3.0)
FLUX: Final = Case("GET /api/v1/flux", BALANCE, 64)


@dataclass(frozen=True, slots=True)
class Measured:
    """One case as it went. Everything counted is of the measured time alone."""

    case: Case
    outcome: Outcome
    cpu_s: dict[str, float]
    others_s: float
    pace_ms: float
    asked: dict[str, int]
    written: Written
    totals: Totals
    faults: list[str]


def requests_of(case: Case, target: Target) -> list[str]:
    """Return one whole HTTP request for each key that takes part."""
    return [_request(case, target, key) for key in target.keys[: case.users]]


def _request(case: Case, target: Target, key: str) -> str:
    lines = [f"Host: {target.host}:{target.ports[0]}", f"Authorization: Bearer {key}"]
    shared = "".join(f"{line}\r\n" for line in [*lines, *target.headers])
    if case.expects == BALANCE:
        return f"GET /api/v1/flux HTTP/1.1\r\n{shared}\r\n"
    content = f"{_PROMPT} {case.note}".strip()
    order: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 256,
    }
    if case.is_stream:
        order["stream"] = True
    body = orjson.dumps(order).decode()
    headers = f"{shared}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST {target.path} HTTP/1.1\r\n{headers}\r\n{body}"


def fire(case: Case, target: Target, seconds: float, *, most: int = 1_000_000) -> Outcome:
    """Put the load on, for so many seconds or requests; return when every answer is there."""
    plan = Plan(
        host=target.host,
        ports=target.ports,
        requests=requests_of(case, target),
        expects=case.expects,
        connections=case.connections,
        seconds=seconds,
        most=most,
        spread_s=case.spread_s,
    )
    generator = spawn("bench.load", pipes=True)
    try:
        said, _ = generator.communicate(orjson.dumps(plan), timeout=seconds + 60)
    finally:
        if generator.poll() is None:
            generator.kill()
            generator.wait()
    if generator.returncode != 0:
        raise SystemExit("The load generator failed; see above.")
    return Outcome(**orjson.loads(said))


def measure(case: Case, rig: Rig, target: Target, seconds: float) -> Measured:
    """Run one case against our own server, and hold its answers against its rows."""
    books = rig.books
    pace = cpu.pace_ms()
    totals, asked, written = books.totals(), rig.asked(), books.written()
    machine, used = cpu.machine_used(), cpu.used(rig.kinds)
    outcome = fire(case, target, seconds)
    spent = {kind: after - used[kind] for kind, after in cpu.used(rig.kinds).items()}
    spent["load"] = outcome.cpu_s
    others = cpu.machine_used() - machine - sum(spent.values())
    now, ended, later = rig.asked(), books.written(), books.totals()
    delta = later - totals
    paid = 0 if case.expects == BALANCE else outcome.complete
    faults = books.faults() + unanswered(outcome) + mismatches(paid, delta)
    return Measured(
        case=case,
        outcome=outcome,
        cpu_s=spent,
        others_s=max(0.0, others),
        pace_ms=(pace + cpu.pace_ms()) / 2,
        asked={name: count - asked[name] for name, count in now.items()},
        written=Written(ended.commits - written.commits, ended.wal_bytes - written.wal_bytes),
        totals=delta,
        faults=faults,
    )


def unanswered(outcome: Outcome) -> list[str]:
    """Return what was wrong with the answers, if anything was."""
    return [f"{outcome.broken} answers were not whole: {outcome.sample}"] if outcome.broken else []


def mismatches(paid: int, written: Totals) -> list[str]:
    """Hold what the clients got against what was written for it."""
    wanted = replace(written, rows=paid, settled=paid, debits=paid)
    return [] if written == wanted else [f"{paid} paid answers, but {written}"]


def own(rig: Rig, model: str = MODEL, *servers: Servers) -> Target:
    """Return our own servers; without any given those that every rig has."""
    groups = servers or (rig.servers,)
    pids = [pid for group in groups for pid in group.pids]
    ports = [group.port for group in groups]
    return Target(processes.LOOPBACK, ports, rig.keys, model, pids=pids)


def upstream(rig: Rig, model: str = MODEL) -> Target:
    return Target(processes.LOOPBACK, [rig.upstream_port], ["sk-direct"], model)
