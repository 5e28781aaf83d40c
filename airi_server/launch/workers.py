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
from collections.abc import Callable, Iterator
from typing import Final

from airi_server.launch import processes
from airi_server.launch.environment import Storage

_READY_S: Final = 60.0
_WATCH_S: Final = 0.25
_AT_ONCE_S: Final = 0.5
# An exit within this time of starting is a bug: stop. A later one: restart.
_TRUSTED_AFTER_S: Final = 5.0


class Workers:
    """Worker processes accepting from one socket, with the role that serves.

    They hold the stack as we do: if we are killed, the database stays until they have settled
    what was in flight.
    """

    def __init__(self, listener: socket.socket, count: int, storage: Storage) -> None:
        self._listener = listener
        self._stack = storage.stack
        self._environment = {"DATABASE_URL": storage.serving_url}
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

    def watch(self, look: Callable[[], None]) -> None:
        """Replace workers that fall, until a signal or the loss of the stack ends it all.

        Args:
            look: Called now and then.
        """
        while self._stack is None or self._stack.is_running():
            look()
            for place, worker in enumerate(self._running):
                if worker.poll() is not None:
                    self._running[place] = self._replacement(worker)
            time.sleep(_WATCH_S)
        raise SystemExit("PostgreSQL or Redis is gone; see supervisor.log in the data directory.")

    def stop(self) -> None:
        """Let requests in flight finish; a second Ctrl-C hurries."""
        delay_s = int(os.environ.get("SHUTDOWN_DELAY_S", "0"))
        longest_s = delay_s + int(os.environ.get("SHUTDOWN_GRACE_S", "25"))
        for worker in self._running:
            worker.terminate()
        try:
            if not self._have_ended(within_s=_AT_ONCE_S):
                print(f"Stopping: waiting for requests in flight, at most {longest_s} s. "
                      "Ctrl-C again stops at once.", flush=True)  # fmt: skip
            for worker in self._running:
                processes.stop(worker, how=signal.SIGTERM, patience_s=longest_s + 5)
        except KeyboardInterrupt:
            print("Stopping at once: the next start settles what was in flight.", flush=True)
            raise
        finally:
            for worker in self._running:
                processes.stop(worker, how=signal.SIGKILL, patience_s=5)

    def _have_ended(self, *, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while any(worker.poll() is None for worker in self._running):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

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
        worker = processes.spawn(
            "worker",
            f"--socket={listener}",
            log=None,
            environment=self._environment,
            pass_fds=inherited,
        )
        self._started_at[worker.pid] = time.monotonic()
        return worker


@contextlib.contextmanager
def running(listener: socket.socket, count: int, storage: Storage) -> Iterator[Workers]:
    workers = Workers(listener, count, storage)
    try:
        yield workers
    finally:
        workers.stop()
