"""The cases, and what each run of one has cost: load from outside, counters before and after."""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg

from airi_server.kernel import resources
from airi_server.launch import processes
from tests.bench import cpu
from tests.bench.chat.load import Outcome, Plan
from tests.bench.rig import Rig, spawn

_STARTED_S: Final = 120.0
_PULLED: Final = resources.read_text("chats", "sql/pull_messages.sql")
_PAGE: Final = 500
_PAGE_BYTES: Final = 1_048_576
_PLACES: Final = 40
_TRIES: Final = 3
_NAMES: Final = {
    "chat_id": "$1", "user_id": "$2", "after_seq": "$3", "page": "$4", "max_bytes": "$5",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One load on one chat. With `per_second` it is paced, else each sender keeps a window open."""

    name: str
    receivers: int = 50
    senders: int = 4
    window: int = 16
    per_second: float = 0.0


FLOOD: Final = Case("as much as one chat takes")
PACED: Final = Case("paced", per_second=50.0)
ONE: Final = Case("one at a time", receivers=1, senders=1, window=1)


@dataclass(frozen=True, slots=True)
class Measured:
    """One case as it went; `cpu_s` is by kind of process."""

    case: Case
    outcome: Outcome
    cpu_s: Mapping[str, float]
    others_s: float
    pace_ms: float
    statements: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Sockets that stayed for a while."""

    sockets: int
    lost: int
    pings: int
    seconds: float
    empty_mb: int
    full_mb: int
    opening_cpu_s: float
    cpu_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Pull:
    """Database milliseconds of pulls of 500 messages, planning included."""

    messages: int
    p50_ms: float
    worst_ms: float


class Chat:
    """A chat and the keys of those in it."""

    def __init__(self, chat_id: str, keys: Sequence[str]) -> None:
        self.id = chat_id
        self.keys = keys


def measure(case: Case, rig: Rig, chat: Chat, seconds: float) -> Measured:
    """Run one case and hold what the sockets counted against the chat's rows."""
    pace, statements = cpu.pace_ms(), rig.asked()["statements"]
    machine, used = cpu.machine_used(), cpu.used(rig.kinds)
    outcome = _fire(case, rig, chat, seconds)
    spent = {kind: after - used[kind] for kind, after in cpu.used(rig.kinds).items()}
    spent["load"] = outcome.cpu_s
    others = cpu.machine_used() - machine - sum(spent.values())
    head = _head(rig, chat)
    if head != (outcome.head, outcome.head):
        outcome.faults.append(f"the chat has {head} numbers and rows, not {outcome.head}")
    return Measured(
        case=case,
        outcome=outcome,
        cpu_s=spent,
        others_s=max(0.0, others),
        pace_ms=(pace + cpu.pace_ms()) / 2,
        statements=rig.asked()["statements"] - statements,
    )


def hold(rig: Rig, keys: Sequence[str], seconds: float) -> Idle:
    """Open a socket for each key and see what it costs that they stay."""
    plan = {"host": processes.LOOPBACK, "port": rig.port, "keys": list(keys)}
    empty, before = cpu.resident_mb(rig.kinds["server"]), cpu.used(rig.kinds)
    holder = spawn("bench.chat.idle", pipes=True)
    assert holder.stdin is not None
    try:
        holder.stdin.write(orjson.dumps(plan) + b"\n")
        holder.stdin.flush()
        is_open = _line(holder)["open"]
        used, began = cpu.used(rig.kinds), time.perf_counter()
        time.sleep(seconds)
        spent = {kind: after - used[kind] for kind, after in cpu.used(rig.kinds).items()}
        took, full = time.perf_counter() - began, cpu.resident_mb(rig.kinds["server"])
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        said = _line(holder)
    finally:
        holder.kill()
        holder.wait()
    return Idle(
        sockets=is_open,
        lost=said["lost"],
        pings=said["pings"],
        seconds=took,
        empty_mb=empty,
        full_mb=full,
        opening_cpu_s=used["server"] - before["server"],
        cpu_s=spent,
    )


def pull(database_url: str, chat_id: str, user_id: str, count: int) -> Pull:
    """Pull 500 messages from places all over a long chat; the plan is the one the pool keeps.

    Of several tries at one place the best counts: what others do to the processor is not ours.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        types = "text, text, bigint, int, int"
        connection.execute(f"PREPARE pulled ({types}) AS {_PULLED % _NAMES}".encode())
        took = sorted(
            min(_pulled_ms(connection, chat_id, user_id, after) for _ in range(_TRIES))
            for after in random.Random(1).sample(range(count - _PAGE), _PLACES)
        )
    return Pull(messages=count, p50_ms=took[len(took) // 2], worst_ms=took[-1])


def _pulled_ms(
    connection: psycopg.Connection[Any], chat_id: str, user_id: str, after: int
) -> float:
    arguments = f"'{chat_id}', '{user_id}', {after}, {_PAGE}, {_PAGE_BYTES}"
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE pulled ({arguments})"
    row = connection.execute(explained.encode()).fetchone()
    assert row is not None
    (plan,) = row[0]
    return float(plan["Planning Time"] + plan["Execution Time"])


def _fire(case: Case, rig: Rig, chat: Chat, seconds: float) -> Outcome:
    keys = itertools.islice(chat.keys, case.receivers + case.senders)
    receivers = list(itertools.islice(keys, case.receivers))
    plan = Plan(
        host=processes.LOOPBACK,
        port=rig.port,
        chat_id=chat.id,
        receivers=receivers,
        senders=list(keys),
        seconds=seconds,
        head=_head(rig, chat)[0],
        window=case.window,
        per_second=case.per_second,
    )
    generator = spawn("bench.chat.load", pipes=True)
    try:
        said, _ = generator.communicate(orjson.dumps(plan), timeout=seconds + _STARTED_S)
    finally:
        if generator.poll() is None:
            generator.kill()
            generator.wait()
    if generator.returncode != 0:
        raise SystemExit("The load generator failed; see above.")
    return Outcome(**orjson.loads(said))


def _head(rig: Rig, chat: Chat) -> tuple[int, int]:
    """Return the chat's number and how many rows it has."""
    head, rows = rig.books.row(
        "SELECT last_seq, (SELECT count(*) FROM chat_message m WHERE m.chat_id = c.id)"
        f" FROM chat c WHERE c.id = '{chat.id}'"
    )
    return head, rows


def _line(process: subprocess.Popen[bytes]) -> dict[str, int]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("The sockets could not be held; see above.")
    said: dict[str, int] = orjson.loads(line)
    return said
