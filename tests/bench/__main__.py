"""Bring everything up, run the parts asked for, say what they cost and which goals hold.

Without a part it is the main table. `all` is every part, each with storage of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

import orjson

from airi_server.launch import processes
from tests.bench import (
    against,
    instances,
    memory,
    overhead,
    paced,
    redis_clients,
    rig,
    rows,
    table,
)
from tests.bench.cases import MODEL
from tests.bench.goals import Findings
from tests.bench.goals import table as goals_table

PARTS: Final[Mapping[str, Callable[[rig.Rig, argparse.Namespace], Findings]]] = {
    "table": table.run,
    "paced": paced.run,
    "overhead": overhead.run,
    "instances": instances.run,
    "memory": memory.run,
    "rows": rows.run,
    "redis": redis_clients.run,
    "against": against.run,
}
_SECONDS: Final = 15.0
_QUICK_S: Final = 3.0


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, end)
    try:
        found = _run(options) if len(options.parts) == 1 else _run_each(options)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"\n{goals_table(found.goals)}")
    for fault in found.faults:
        print(f"WRONG: {fault}")
    if options.findings:
        options.findings.write_bytes(orjson.dumps(found.as_json()))
    sys.exit(1 if found.faults else 0)


def _run(options: argparse.Namespace) -> Findings:
    """Run one part, in this process."""
    began = time.monotonic()
    with rig.running(upstream_port=options.upstream_port) as running:
        introduce(running, options.seconds)
        found = PARTS[options.parts[0]](running, options)
    print(f"{options.parts[0]}: {time.monotonic() - began:.0f} s in all", flush=True)
    return found


def _run_each(options: argparse.Namespace) -> Findings:
    """Run each part in a process of its own: Django can be told only once where its storage is."""
    found = Findings()
    given = [argument for argument in sys.argv[1:] if argument not in {*PARTS, "all"}]
    with tempfile.TemporaryDirectory() as directory:
        for part in options.parts:
            print(f"\n## {part}", flush=True)
            file = Path(directory, part)
            command = [sys.executable, "-m", "tests.bench", part, *given, f"--findings={file}"]
            status = _wait_for(subprocess.Popen(command))
            if not file.exists():
                found.faults.append(f"{part} ended with status {status}")
                continue
            its = Findings.of_json(orjson.loads(file.read_bytes()))
            found.goals += its.goals
            found.faults += [f"{part}: {fault}" for fault in its.faults]
    return found


def _wait_for(part: subprocess.Popen[bytes]) -> int:
    """Return how a part ended; if we are told to stop, it is, and puts its own things away."""
    try:
        return part.wait()
    except KeyboardInterrupt:
        processes.stop(part, how=signal.SIGTERM, patience_s=60)
        raise


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


def _options() -> argparse.Namespace:
    options = _parser().parse_args()
    if unknown := set(options.parts) - {*PARTS, "all"}:
        sys.exit(f"./run bench: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "all" in options.parts:
        options.parts = [part for part in PARTS if part != "against" or options.against]
    elif not options.parts:
        asked = {"table": True, "instances": options.workers, "against": options.against}
        options.parts = [part for part, is_asked in asked.items() if is_asked]
    if "against" in options.parts and not options.against:
        sys.exit("./run bench against: say which gateway with --against URL.")
    options.seconds = options.seconds or (_QUICK_S if options.quick else _SECONDS)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} or all")
    add("--quick", action="store_true", help="short cases: under a minute in all")
    add("--seconds", type=float, help="how long each case lasts")
    add("--rounds", type=int, help="of what is measured in turns")
    add("--rows", type=int, default=10_000_000, help="rows: the larger ledger")
    add("--requests", type=int, default=1_000_000, help="memory: how many are served")
    add("--workers", type=int, help="instances: processes behind one port (2)")
    add("--against", metavar="URL", help="the same load on another gateway, for the ratio")
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="sent to --against")
    add("--key", default="sk-none", help="sent to --against")
    add("--model", default=MODEL, help="asked of --against")
    add("--upstream-port", type=int, default=0, help="what --against can be routed to; 0 is any")
    add("--findings", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
