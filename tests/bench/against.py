"""Another gateway and ours under the same load, in turns, with the same upstream behind both."""

from __future__ import annotations

import argparse
import sys
from typing import Final
from urllib.parse import urlsplit

from airi_server.launch import processes
from tests.bench import cases, cpu, pairs
from tests.bench.cases import Target
from tests.bench.goals import Change, Findings, Goal
from tests.bench.pairs import Side
from tests.bench.rig import Rig

_ROUNDS: Final = 4
_ROUND_S: Final = 5.0
_WANTED: Final = 2.0


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    other = _other(options)
    seconds, rounds = min(options.seconds, _ROUND_S), options.rounds or _ROUNDS
    found = Findings()
    for case in (cases.ONE, cases.MANY, cases.STREAMS):
        ours = Side(f"ours, {case.label}", case, cases.own(rig), rig.books)
        theirs = Side(f"theirs, {case.label}", case, other)
        found.faults += pairs.alternate(rig, [ours, theirs], seconds=seconds, rounds=rounds)
        if not all(theirs.rates()):
            sys.exit(f"{options.against} answered nothing: {' '.join(theirs.faults)}")
        faster = Change.between(theirs.rates(), ours.rates())
        cheaper = pairs.change(ours, theirs, "server") if other.pids else None
        cost = f"; a request takes {cheaper} the CPU of our server" if cheaper else ""
        # Its books are empty, so at one connection ours can only be slower: not a goal.
        holds = faster.middle > _WANTED if case.connections > 1 else None
        wanted = f"{case.label}: more than twice {options.against}"
        found.goals.append(Goal(wanted, f"{faster} its rate{cost}", holds))
    return found


def _other(options: argparse.Namespace) -> Target:
    url = urlsplit(options.against)
    if url.scheme != "http" or url.hostname not in (processes.LOOPBACK, "localhost"):
        sys.exit("--against takes an http:// URL on this machine.")
    port = url.port or 80
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path.removesuffix('/v1')}{cases.CHAT}"
    return Target(
        processes.LOOPBACK,
        [port],
        [options.key],
        options.model,
        path=path,
        headers=[_header(line) for line in options.header],
        pids=cpu.listening_on(port),
    )


def _header(line: str) -> str:
    name, colon, value = line.partition(":")
    if not (name and colon):
        sys.exit(f"--header takes NAME:VALUE, not {line}.")
    return f"{name.strip()}: {value.strip()}"
