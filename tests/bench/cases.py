"""The cases, and one run of one: load from outside, and what was counted before and after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from airi_server.launch import processes
from tests.bench import cpu
from tests.bench.books import Totals, Written
from tests.bench.load import BALANCE, JSON, STREAM, Outcome, Plan
from tests.bench.rig import Rig, spawn

CHAT: Final = "/v1/chat/completions"
_PROMPT: Final = "Tell me, in a few words, why the sea is salt, and whether it has always been so."


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who speaks OpenAI's protocol. `rig` is None where we can count nothing."""

    host: str
    port: int
    keys: list[str]
    model: str
    path: str = CHAT
    rig: Rig | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load. `users` of the keys take part; `note` goes into the request's text."""

    name: str
    expects: str
    connections: int
    users: int = 64
    note: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} c={self.connections}"

    @property
    def unit(self) -> str:
        return "streams/s" if self.expects == STREAM else "req/s"


DIRECT: Final = Case("direct to the upstream", JSON, 1)
ONE: Final = Case("non-streaming", JSON, 1)
MANY: Final = Case("non-streaming", JSON, 64)
ONE_USER: Final = Case("non-streaming one user", JSON, 64, users=1)
STREAMS: Final = Case("streams", STREAM, 64)
STREAMS_AT_ONCE: Final = Case("streams written at once", STREAM, 64, note="at-once")
STREAM_ONE: Final = Case("streams", STREAM, 1)
DIRECT_STREAM: Final = Case("direct stream from the upstream", STREAM, 1)
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
    host = f"{target.host}:{target.port}"
    shared = f"Host: {host}\r\nAuthorization: Bearer {key}\r\n"
    if case.expects == BALANCE:
        return f"GET /api/v1/flux HTTP/1.1\r\n{shared}\r\n"
    content = f"{_PROMPT} {case.note}".strip()
    order: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 256,
    }
    if case.expects == STREAM:
        order["stream"] = True
    body = orjson.dumps(order).decode()
    headers = f"{shared}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST {target.path} HTTP/1.1\r\n{headers}\r\n{body}"


def fire(case: Case, target: Target, seconds: float) -> Outcome:
    """Put the load on; return when every answer is there or given up."""
    plan = Plan(
        host=target.host,
        port=target.port,
        requests=requests_of(case, target),
        expects=case.expects,
        connections=case.connections,
        seconds=seconds,
    )
    generator = spawn("load", pipes=True)
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
    delta = Totals(
        later.rows - totals.rows, later.settled - totals.settled, later.debits - totals.debits
    )
    faults = books.faults() + _mismatches(case, outcome, delta)
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


def _mismatches(case: Case, outcome: Outcome, written: Totals) -> list[str]:
    """Hold what the client got against what was written for it."""
    faults = []
    if outcome.broken:
        faults.append(f"{outcome.broken} answers were not whole: {outcome.sample}")
    paid = 0 if case.expects == BALANCE else outcome.complete
    wanted = replace(written, rows=paid, settled=paid, debits=paid)
    if written != wanted:
        faults.append(f"{paid} paid answers, but {written}")
    return faults


def own(rig: Rig, model: str) -> Target:
    return Target(processes.LOOPBACK, rig.port, rig.keys, model, rig=rig)


def upstream(rig: Rig, model: str) -> Target:
    return Target(processes.LOOPBACK, rig.upstream_port, ["sk-direct"], model)
