"""Does a request cost more where millions went before? Two databases of one PostgreSQL, in turns.

One has the thousand rows it was warmed up with, and what the rounds add; the other as many and
ten million more. Each has a server of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.bench import cases, fill, pairs
from tests.bench.books import Books
from tests.bench.goals import Findings, Goal
from tests.bench.pairs import Side
from tests.bench.rig import Rig

_FEW: Final = 1_000
_ROUNDS: Final = 8
_ROUND_S: Final = 4.0
_MOST: Final = 15.0
_LARGE: Final = "airi_large"
# What writing gigabytes at once needs; afterwards everything is as any run has it.
_HURRY: Final = ("ALTER SYSTEM SET max_wal_size = '8GB'", "SELECT pg_reload_conf()")
_NORMAL: Final = ("ALTER SYSTEM RESET max_wal_size", "SELECT pg_reload_conf()", "CHECKPOINT")


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    warm = cases.fire(cases.MANY, cases.own(rig), 30.0, most=_FEW)
    rig.servers.stop()
    large_url = _large_copy(rig, options.rows)
    with _sides(rig, large_url) as (few, many):
        sizes = [side.books.totals().debits for side in (few, many) if side.books]
        seconds, rounds = min(options.seconds, _ROUND_S), options.rounds or _ROUNDS
        faults = cases.unanswered(warm)
        faults += pairs.alternate(rig, [few, many], seconds=seconds, rounds=rounds)
        grown = [side.books.totals().debits for side in (few, many) if side.books]
    print(
        f"debits: {sizes[0]:,} and {sizes[1]:,} at first, {grown[0]:,} and {grown[1]:,} in the end"
    )
    return Findings([_goal(few, many, *kinds) for kinds in (pairs.PAID, ("server",),
                                                           ("postgres",))], faults)  # fmt: skip


def _goal(few: Side, many: Side, *kinds: str) -> Goal:
    change = pairs.change(few, many, *kinds)
    before, after = (sum(side.cpu_s[kind] for kind in kinds) for side in (few, many))
    came = f"{change.as_percent()}: {before:.3f} and {after:.3f} CPU s/1k"
    # One kind alone only explains the sum.
    holds = change.percent <= _MOST if kinds == pairs.PAID else None
    return Goal(f"cost of {' and '.join(kinds)} on the long ledger within 15 %", came, holds)


def _large_copy(rig: Rig, rows: int) -> str:
    """Copy the database, with nobody in it, and add the rows; return where it is."""
    url = urlsplit(rig.database_url)
    large_url = urlunsplit(url._replace(path=f"/{_LARGE}"))
    rig.books.close()
    began = time.monotonic()
    with _session(urlunsplit(url._replace(path="/postgres"))) as session:
        session.execute(f"CREATE DATABASE {_LARGE} TEMPLATE {url.path[1:]}".encode())
        _send(session, _HURRY)
        fill.fill(large_url, rows)
        _send(session, _NORMAL)
    rig.books = Books(rig.database_url)
    with Books.of(large_url) as large:
        large.settle_down()
        size = large.row("SELECT pg_database_size(current_database())")[0]
    took = time.monotonic() - began
    print(f"{rows:,} rows made in {took:.0f} s: {size / 2**30:.2f} GiB", flush=True)
    return large_url


@contextmanager
def _sides(rig: Rig, large_url: str) -> Iterator[list[Side]]:
    with ExitStack() as ending:
        books = ending.enter_context(Books.of(large_url))
        large = ending.enter_context(rig.others(DATABASE_URL=large_url, REDIS_PREFIX="airi-large"))
        rig.servers.grow(1)
        large.grow(1)
        yield [
            Side("few rows", cases.MANY, cases.own(rig), rig.books),
            Side("many rows", cases.MANY, cases.own(rig, cases.MODEL, large), books),
        ]


def _session(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def _send(session: psycopg.Connection[Any], statements: tuple[str, ...]) -> None:
    for statement in statements:
        session.execute(statement.encode())
