"""CPU seconds by kind of process, from /proc; a kind is a few processes and all below them.

What an ended child has used stays with its parent, so nothing is lost when a backend goes.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Processes:
    """One look at /proc."""

    def __init__(self) -> None:
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        self._used: dict[int, float] = {}
        self.names: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                self._read(entry)

    def _read(self, entry: Path) -> None:
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            return
        pid, name = int(entry.name), stat[stat.index("(") + 1 : stat.rindex(")")]
        columns = stat[stat.rindex(")") + 2 :].split()
        self.names[pid] = name
        self._children[int(columns[1])].append(pid)
        self._used[pid] = sum(int(ticks) for ticks in columns[11:15]) / _TICKS

    def children(self, pid: int) -> list[int]:
        return self._children[pid]

    def used_by(self, pid: int) -> float:
        """Return the seconds of a process, of everything below it and of its ended children."""
        below = sum(self.used_by(child) for child in self._children[pid])
        return self._used.get(pid, 0.0) + below


def used(kinds: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the seconds each kind has used since it was started."""
    seen = Processes()
    return {kind: sum(map(seen.used_by, pids)) for kind, pids in kinds.items()}


def machine_used() -> float:
    """Return the seconds that everything on this machine has used."""
    columns = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, soft = columns[:7]
    return (user + nice + system + irq + soft) / _TICKS


def pace_ms() -> float:
    """Return the CPU milliseconds that a fixed piece of Python takes here and now.

    CPU seconds are not quite a constant of the code: a core that shares its caches or its clock
    with somebody busy needs more of them. Compare runs of the same pace.
    """
    began = time.thread_time()
    numbers: dict[str, int] = {}
    for number in range(60_000):
        numbers[str(number % 1_000)] = number
    return 1000 * (time.thread_time() - began)


def resident_mb(pids: Sequence[int]) -> int:
    """Return the resident memory of the largest of these processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return max(pages) * _PAGE // 2**20


def listening_on(port: int) -> list[int]:
    """Return the processes that listen on a port, without those below one of them."""
    inodes = {
        f"socket:[{columns[9]}]"
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if (columns := line.split())[3] == "0A" and int(columns[1].rsplit(":")[-1], 16) == port
    }
    found = [int(entry.name) for entry in Path("/proc").iterdir() if _has_any(entry, inodes)]
    seen = Processes()
    below = {child for pid in found for child in seen.children(pid)}
    return [pid for pid in found if pid not in below]


def _has_any(process: Path, inodes: Set[str]) -> bool:
    try:
        links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
    except OSError:
        return False
    return process.name.isdigit() and not inodes.isdisjoint(links)
