"""The workers of one `./run`: started together, replaced when they fall, stopped in order."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from airi_server.launch import processes
from airi_server.launch.stack import Stack

_READY_S: Final = 60.0
_WATCH_S: Final = 0.25
# A worker that falls sooner fell by itself and would again; one that fell later was pushed.
_TRUSTED_AFTER_S: Final = 5.0


class Workers:
    """Worker processes accepting from one socket.

    They hold the stack as we do: if we are killed, the database stays until they have settled
    what was in flight.
    """

    def __init__(self, listener: socket.socket, count: int, stack: Stack | None) -> None:
        self._listener = listener
        self._stack = stack
        self._started_at: dict[int, float] = {}
        self._running = [self._spawn() for _ in range(count)]

    def wait_until_ready(self) -> None:
        """Return when /readyz says so, or end with what it said last."""
        deadline = time.monotonic() + _READY_S
        answer = "no answer"
        while time.monotonic() < deadline:
            answer = self._readiness(deadline)
            if answer.startswith("200"):
                return
            time.sleep(_WATCH_S)
        raise SystemExit(f"The server did not become ready in {_READY_S:.0f} s: {answer}")

    def watch(self) -> None:
        """Replace workers that fall, until a signal or the loss of the stack ends it all."""
        while self._stack is None or self._stack.is_running():
            for place, worker in enumerate(self._running):
                if worker.poll() is not None:
                    self._running[place] = self._replacement(worker)
            time.sleep(_WATCH_S)
        raise SystemExit("PostgreSQL or Redis is gone; see keeper.log in the data directory.")

    def stop(self) -> None:
        """Let requests in flight finish; a second Ctrl-C hurries."""
        grace_s = int(os.environ.get("SHUTDOWN_GRACE_S", "25"))
        for worker in self._running:
            worker.terminate()
        try:
            for worker in self._running:
                processes.stop(worker, how=signal.SIGTERM, patience_s=grace_s + 5)
        finally:
            for worker in self._running:
                processes.stop(worker, how=signal.SIGKILL, patience_s=5)

    def _readiness(self, deadline: float) -> str:
        """Ask once, waiting in the socket's queue until a worker takes the question."""
        port = self._listener.getsockname()[1]
        with contextlib.closing(http.client.HTTPConnection(processes.LOOPBACK, port)) as asked:
            try:
                asked.request("GET", "/readyz")
                while not select.select([asked.sock], [], [], 0.05)[0]:
                    if time.monotonic() > deadline:
                        return "no answer"
                    self._refuse_fallen()
                response = asked.getresponse()
                return f"{response.status} {response.read(2000).decode(errors='replace')}"
            except (OSError, http.client.HTTPException) as error:
                return str(error)

    def _refuse_fallen(self) -> None:
        if any(worker.poll() is not None for worker in self._running):
            raise SystemExit("The server did not start; its log is above.")

    def _replacement(self, fallen: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        if time.monotonic() - self._started_at.pop(fallen.pid) < _TRUSTED_AFTER_S:
            raise SystemExit("A worker ended right after its start; its log is above.")
        print(f"Worker {fallen.pid} ended ({fallen.returncode}); starting another.", flush=True)
        return self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        inherited = (listener, *(self._stack.holds() if self._stack else ()))
        worker = processes.spawn("worker", f"--socket={listener}", log=None, pass_fds=inherited)
        self._started_at[worker.pid] = time.monotonic()
        return worker


@contextlib.contextmanager
def running(listener: socket.socket, count: int, stack: Stack | None) -> Iterator[Workers]:
    workers = Workers(listener, count, stack)
    try:
        yield workers
    finally:
        workers.stop()
