"""`python -m tests.bench`: bring everything up, run the cases, say what they cost."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from airi_server.launch import processes
from tests.bench import cases, cpu, report, rig
from tests.bench.cases import Case, Measured, Target

_SECONDS: Final = 15.0
_QUICK_S: Final = 3.0
MODEL: Final = "chat-default"


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, end)
    try:
        sound = _run(options)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if sound else 1)


def _run(options: argparse.Namespace) -> bool:
    """Return whether every case was answered, written and paid alike."""
    seconds = options.seconds or (_QUICK_S if options.quick else _SECONDS)
    began = time.monotonic()
    with rig.running(upstream_port=options.upstream_port) as running:
        introduce(running, seconds)
        sound = _run_all(running, options, seconds)
        print(
            f"server memory: {cpu.resident_mb(running.kinds['server'])} MB | "
            f"{time.monotonic() - began:.0f} s in all"
        )
    return sound


def _run_all(running: rig.Rig, options: argparse.Namespace, seconds: float) -> bool:
    target, direct = cases.own(running, MODEL), cases.upstream(running, MODEL)
    short = min(seconds, 5.0)
    _warm_up(target, min(seconds, 4.0))
    base = cases.fire(cases.DIRECT, direct, min(short, 2.0))
    print(report.short_line(cases.DIRECT, base), flush=True)
    runs = [_said(cases.ONE, target, short, added_to=base.p50)]
    measured = [cases.MANY, cases.ONE_USER, cases.STREAMS, cases.FLUX]
    if not options.quick:
        runs.append(_said(cases.STREAM_ONE, target, short))
        stream = cases.fire(cases.DIRECT_STREAM, direct, short)
        print(report.short_line(cases.DIRECT_STREAM, stream), f"| first {stream.first_p50:.2f} ms")
        measured.insert(3, cases.STREAMS_AT_ONCE)
    runs += [_said(case, target, seconds) for case in measured]
    if options.against:
        _compare(runs, _other(options), seconds)
    if options.workers > 1:
        running.add_servers(options.workers)
        _warm_up(target, min(seconds, 2.0))
        print(f"with {options.workers} server processes:")
        runs.append(_said(cases.MANY, target, seconds))
        _compare_workers(runs)
    return not any(run.faults for run in runs)


def _said(case: Case, target: Target, seconds: float, *, added_to: float | None = None) -> Measured:
    assert target.rig is not None
    measured = cases.measure(case, target.rig, target, seconds)
    added = None if added_to is None else measured.outcome.p50 - added_to
    print(report.line(measured, added_ms=added), flush=True)
    return measured


def _warm_up(target: Target, seconds: float) -> None:
    for case in (cases.MANY, cases.STREAMS, cases.FLUX):
        cases.fire(case, target, seconds / 3)


def _compare(runs: list[Measured], other: Target, seconds: float) -> None:
    for run in runs:
        if run.case in (cases.ONE, cases.MANY, cases.STREAMS):
            outcome = cases.fire(run.case, other, seconds)
            ratio = run.outcome.rate / outcome.rate if outcome.rate else float("inf")
            broken = f" | {outcome.broken} not whole: {outcome.sample}" if outcome.broken else ""
            said = f"{report.short_line(run.case, outcome)} | ours is {ratio:.1f} times that"
            print(f"against {said}{broken}", flush=True)


def _compare_workers(runs: list[Measured]) -> None:
    alone, together = [run for run in runs if run.case == cases.MANY]
    print(f"{together.outcome.rate / max(alone.outcome.rate, 1):.2f} times one process")


def _other(options: argparse.Namespace) -> Target:
    url = urlsplit(options.against)
    if url.scheme != "http" or not url.hostname:
        sys.exit("--against takes an http:// URL on this machine.")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path.removesuffix('/v1')}{cases.CHAT}"
    return Target(url.hostname, url.port or 80, [options.key], options.model, path=path)


def introduce(running: rig.Rig, seconds: float) -> None:
    settings = running.books.durability()
    if (settings["fsync"], settings["synchronous_commit"]) != ("on", "on"):
        sys.exit("PostgreSQL would lose commits: nothing here would be worth measuring.")
    print(
        f"PostgreSQL {settings['server_version']}, fsync and synchronous_commit on, "
        f"{1000 * _sync_s(running.directory):.2f} ms a sync | {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} | {seconds:.0f} s a case | "
        f"upstream http://{processes.LOOPBACK}:{running.upstream_port}/v1",
        flush=True,
    )


def _sync_s(directory: Path) -> float:
    """Return how long the disk takes to keep 8 kB: below 0.05 ms it keeps nothing."""
    file = os.open(directory / "sync", os.O_CREAT | os.O_WRONLY, 0o600)
    took = []
    for _ in range(30):
        os.pwrite(file, os.urandom(8192), 0)
        began = time.perf_counter()
        os.fdatasync(file)
        took.append(time.perf_counter() - began)
    os.close(file)
    return sorted(took)[len(took) // 2]


def end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="short cases: under a minute in all")
    add("--seconds", type=float, help="how long each case lasts")
    add("--workers", type=int, default=1, help="at the end also with so many server processes")
    add("--against", metavar="URL", help="the same load on another gateway, for the ratio")
    add("--key", default="sk-none", help="sent to --against")
    add("--model", default=MODEL, help="asked of --against")
    add("--upstream-port", type=int, default=0, help="what --against can be routed to; 0 is any")
    return parser


if __name__ == "__main__":
    main()
