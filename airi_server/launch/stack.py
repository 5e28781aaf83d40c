"""PostgreSQL and Valkey for one directory, shared by every command that asks for them.

    with Stack(directory) as stack:
        stack.owner_url, stack.serving_url, stack.redis_url

The first user starts a supervisor (supervisor.py), later ones attach to it, the last stops it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self
from urllib.parse import urlsplit

from airi_server.launch import locks, private, processes
from airi_server.launch.supervisor import LOG, STATE, SUPERVISOR_LOCK, USERS_LOCK

_START_S: Final = 90.0
# What anybody may ask without a password: PostgreSQL's "do you speak TLS?" and Valkey's PING.
_QUESTIONS: Final = {
    "database_url": (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"),
    "redis_url": b"PING\r\n",
}
# Supervisors that others still need when their starter leaves; subprocess warns about dropped ones.
_left_running: Final[list[subprocess.Popen[bytes]]] = []


class StackFailed(RuntimeError):
    """The servers did not come up; the message ends with the log that says why."""


class Stack:
    """One user's hold on the two servers of a directory.

    Args:
        directory: Holds the cluster, the logs and the locks; made if missing, mode 700.
        durable: False lets PostgreSQL lose data in a power cut (tests); whoever starts decides.

    Attributes:
        database_url: PostgreSQL as the superuser, for tests and tools.
        owner_url: The same as the owner of the database, who migrates.
        serving_url: The same as the role that serves.
        redis_url: Valkey.
    """

    def __init__(self, directory: Path | str, *, durable: bool = True) -> None:
        self._directory = Path(directory).absolute()
        self._durable = durable
        self._users: BinaryIO | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.database_url = ""
        self.owner_url = ""
        self.serving_url = ""
        self.redis_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Attach to the running servers, or start them.

        Raises:
            StackFailed: They did not come up.
        """
        private.directory(self._directory)
        self._users = (self._directory / USERS_LOCK).open("ab")
        # Waits here while a supervisor is on its way out, so that none attaches to a dying stack.
        fcntl.flock(self._users, fcntl.LOCK_SH)
        try:
            self._start_supervisor()
            state = self._wait_for_servers()
        except BaseException:
            self._users.close()
            raise
        self.database_url, self.redis_url = state["database_url"], state["redis_url"]
        self.owner_url, self.serving_url = state["owner_url"], state["serving_url"]

    def close(self) -> None:
        """Leave; the last user also waits until both servers have stopped."""
        if self._users is None or self._users.closed:
            return
        with self._users as users, (self._directory / SUPERVISOR_LOCK).open("ab") as supervisor:
            if locks.is_taken(users, fcntl.LOCK_EX):
                self._dismiss_supervisor()
            elif locks.is_taken(users, fcntl.LOCK_SH):
                self._leave_to_others()
                return
            fcntl.flock(supervisor, fcntl.LOCK_EX)
        if self._supervisor is not None:
            self._supervisor.wait()

    def holds(self) -> tuple[int, ...]:
        """Return the descriptors that a child may inherit to use the stack even longer than us."""
        return () if self._users is None else (self._users.fileno(),)

    def is_running(self) -> bool:
        """Tell whether the servers we were given are still kept."""
        return (self._directory / STATE).exists() and self._is_kept()

    def _start_supervisor(self) -> None:
        """Start a supervisor unless there is one; its lock goes from us to it without a gap."""
        with (self._directory / SUPERVISOR_LOCK).open("ab") as lock:
            if not locks.is_taken(lock, fcntl.LOCK_EX):
                return
            (self._directory / STATE).unlink(missing_ok=True)
            self._supervisor = processes.spawn(
                "supervisor",
                str(self._directory),
                f"--lock={lock.fileno()}",
                *([] if self._durable else ["--not-durable"]),
                log=self._directory / LOG,
                pass_fds=(lock.fileno(),),
            )

    def _wait_for_servers(self) -> dict[str, str]:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            state = private.read(self._directory / STATE)
            if state and all(_answers(state[name], ask) for name, ask in _QUESTIONS.items()):
                if "serving_url" not in state:
                    raise StackFailed("An older ./run is still running here; stop it first.")
                return state
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise StackFailed(processes.tail(self._directory / LOG, lines=20))
            if not self._is_kept():
                self._start_supervisor()  # that of another command, on which we counted, is gone
            time.sleep(0.02)
        raise StackFailed(f"The servers in {self._directory} did not come up in {_START_S:.0f} s.")

    def _leave_to_others(self) -> None:
        if self._supervisor is not None:
            _left_running.append(self._supervisor)

    def _is_kept(self) -> bool:
        with (self._directory / SUPERVISOR_LOCK).open("ab") as lock:
            return not locks.is_taken(lock, fcntl.LOCK_SH)

    def _dismiss_supervisor(self) -> None:
        state = private.read(self._directory / STATE)
        with contextlib.suppress(ProcessLookupError):
            if state and self._is_kept():
                os.kill(int(state["supervisor_pid"]), signal.SIGTERM)


def _answers(url: str, question: bytes) -> bool:
    """Tell whether a live server is there: a file left by SIGKILL names ports long closed."""
    try:
        address = (processes.LOOPBACK, urlsplit(url).port or 0)
        with socket.create_connection(address, timeout=2) as connection:
            connection.sendall(question)
            return connection.recv(1) != b""
    except OSError:
        return False
