"""Server processes that accept from one socket and share one environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from airi_server.launch import processes

_READY_S: Final = 30.0


def spawn(
    module: str,
    *arguments: str,
    pass_fds: Sequence[int] = (),
    pipes: bool = False,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module of the tests, which ends with us."""
    command = [sys.executable, "-m", f"tests.{module}", f"--parent={os.getpid()}"]
    with contextlib.ExitStack() as closing:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=processes.ROOT,
            env={**os.environ, **(environment or {})},
            pass_fds=tuple(pass_fds),
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else None,
            stderr=closing.enter_context(log.open("ab")) if log else None,
            process_group=0,
        )


class Servers:
    """Use as a context manager: every process is stopped at the end.

    Args:
        counts: The directory where each process writes what it counts.
        environment: What these processes see beside our own environment.
        log: Where their logs go instead of our stderr.
    """

    def __init__(
        self,
        counts: Path,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self._counts = counts
        self._log = log
        self._listener = processes.bound(0)
        self._listener.listen(2048)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.pids: list[int] = []
        self.port = int(self._listener.getsockname()[1])
        self._environment = {
            "API_SERVER_URL": f"http://{processes.LOOPBACK}:{self.port}",
            **(environment or {}),
        }

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._listener.close()

    def grow(self, count: int) -> None:
        """Start processes until there are `count`."""
        for _ in range(count - len(self._processes)):
            process = spawn(
                "bench.server",
                f"--socket={self._listener.fileno()}",
                pass_fds=[self._listener.fileno()],
                environment=self._environment,
                log=self._log,
            )
            self._processes.append(process)
            self.pids.append(process.pid)
            self._wait_until_ready(process)

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            processes.stop(process, how=signal.SIGTERM, patience_s=15)
        self._processes.clear()
        self.pids.clear()

    def counted(self) -> Counter[str]:
        """Return what all processes have sent so far, and how many tasks they have now."""
        totals: Counter[str] = Counter()
        for process in self._processes:
            totals.update(self._counts_of(process))
        return totals

    def _counts_of(self, process: subprocess.Popen[bytes]) -> dict[str, int]:
        file = self._counts / str(process.pid)
        file.unlink(missing_ok=True)
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while not file.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("A server process does not answer.")
            time.sleep(0.002)
        counts: dict[str, int] = orjson.loads(file.read_bytes())
        return counts

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Return when a process listens: its lifespan is done and it has taken the socket."""
        deadline = time.monotonic() + _READY_S
        while not self._is_ready() or not _is_listening(process.pid, self._listener):
            if process.poll() is not None or time.monotonic() > deadline:
                where = f"see {self._log}" if self._log else "its log is above"
                raise SystemExit(f"The server did not start; {where}.")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        return processes.probe(self.port, "/readyz", timeout_s=10) == 200


def _is_listening(pid: int, listener: socket.socket) -> bool:
    """Tell whether a process polls the shared socket: /proc shows what its epoll watches."""
    inode = os.fstat(listener.fileno()).st_ino
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            if f"ino:{inode:x} " in entry.read_text() + " ":
                return True
    return False
