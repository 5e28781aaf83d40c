"""The supervisor of `manage.py serve`: several workers that accept from one socket.

uvicorn's own is not used: killed, it leaves its workers behind, and it starts one that cannot start
again and again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from socket import (
    AF_INET6,
    AI_PASSIVE,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    gaierror,
    getaddrinfo,
    socket,
)
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BACKLOG: Final = 2048
HEARD: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
_PR_SET_PDEATHSIG: Final = 1
_TRUSTED_AFTER_S: Final = 5.0
"""A worker that ends sooner ended by itself and would again."""

libc: Final = ctypes.CDLL(None, use_errno=True)


class CannotListen(Exception):
    """The address cannot be bound."""


class WorkerFailed(Exception):
    """The workers ended otherwise than they were asked to."""


def die_with_parent(how: signal.Signals, *, parent: int) -> None:
    """Have the kernel signal this process when its parent ends, even by SIGKILL.

    To be called in the child, after its last change of user: that would clear the request.
    """
    libc.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
    if os.getppid() != parent:  # It ended before we could ask.
        os._exit(1)


def listening(host: str, port: int) -> socket:
    """Return a socket that listens; what connects before a worker accepts waits in its queue.

    Raises:
        CannotListen: The host is unknown or not this machine's, or the port is not to be had.
    """
    try:
        found = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)
    except gaierror as unknown:
        raise CannotListen(f"--host {host}: {unknown.strerror}.") from None
    family, kind, protocol, _, address = found[0]
    listener = socket(family, kind, protocol)
    try:
        listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == AF_INET6 and host == "::":  # every address, as in other servers
            listener.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as refused:
        listener.close()
        raise CannotListen(f"{host} port {port}: {refused.strerror}.") from None
    listener.set_inheritable(True)
    return listener


def become_worker(listener: socket) -> None:
    """Turn this process into the only worker: nothing stands between it and who sends signals."""
    os.chdir(ROOT)
    sys.stderr.flush()
    os.execv(sys.executable, _command(listener))  # noqa: S606  ourselves, without a shell


def _command(listener: socket) -> list[str]:
    return [sys.executable, "-m", "airi_server.web", f"--socket={listener.fileno()}"]


@dataclass(frozen=True, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    started: int
    """The pipe in which it says so."""
    since: float

    def has_started(self) -> bool:
        try:
            return os.read(self.started, 1) == b"1"
        except BlockingIOError:
            return False


class Supervisor:
    """Start workers, replace those that fall, and stop all of them at a signal.

    Args:
        listener: What they accept from.
        count: How many.
        patience_s: How long they may take to stop; what is left then is killed.
    """

    def __init__(self, listener: socket, count: int, *, patience_s: float) -> None:
        self._listener = listener
        self._count = count
        self._patience_s = patience_s
        self._workers: list[_Worker] = []

    def run(self) -> None:
        """Return when every worker has ended in order after SIGTERM or SIGINT.

        Raises:
            WorkerFailed: One ended before it could serve, or did not end in time.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            self._workers = [self._spawn() for _ in range(self._count)]
            while signal.sigwait(HEARD) == signal.SIGCHLD:
                self._replace_fallen()
            self._stop()
        except (WorkerFailed, OSError):  # also where no process can be made in a fallen one's place
            self._stop()
            raise
        finally:
            for each in self._running():
                each.process.kill()
                each.process.wait()

    def _running(self) -> list[_Worker]:
        return [each for each in self._workers if each.process.poll() is None]

    def _replace_fallen(self) -> None:
        for place, each in enumerate(self._workers):
            if each.process.poll() is None:
                continue
            has_started = each.has_started()
            os.close(each.started)
            how = f"Worker {each.process.pid} ended ({each.process.returncode})"
            if not has_started or time.monotonic() - each.since < _TRUSTED_AFTER_S:
                del self._workers[place]
                raise WorkerFailed(f"{how} right after its start; its log is above.")
            sys.stderr.write(f"{how}; starting another.\n")
            self._workers[place] = self._spawn()

    def _stop(self) -> None:
        for each in self._running():
            each.process.terminate()
        until = time.monotonic() + self._patience_s
        while self._running():
            heard = signal.sigtimedwait(HEARD, max(0.0, until - time.monotonic()))
            if heard is None:
                raise WorkerFailed(f"Workers did not stop in {self._patience_s:.0f} s: killed.")
            if heard.si_signo == signal.SIGINT:
                raise WorkerFailed("Stopped at once: reconcile-usage settles what was in flight.")

    def _spawn(self) -> _Worker:
        hears, says = os.pipe()
        os.set_blocking(hears, False)
        process = subprocess.Popen(  # noqa: S603  ourselves, without a shell
            [*_command(self._listener), f"--parent={os.getpid()}", f"--started={says}"],
            cwd=ROOT,
            pass_fds=(self._listener.fileno(), says),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for us: who stops, and in which order, is said here
        )
        os.close(says)
        return _Worker(process, hears, time.monotonic())
