"""Child processes that cannot outlive us, and the loopback sockets they listen on."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from airi_server.web import supervisor

ROOT: Final = Path(__file__).resolve().parents[2]
LOOPBACK: Final = "127.0.0.1"
libc: Final = supervisor.libc
die_with_parent: Final = supervisor.die_with_parent


def spawn(
    module: str,
    *arguments: str,
    log: Path | None,
    environment: Mapping[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a module of this package, told who its parent is.

    Its own process group keeps Ctrl-C away: the launcher says who stops, and in which order.
    """
    command = [sys.executable, "-m", f"airi_server.launch.{module}", "--parent", str(os.getpid())]
    with contextlib.ExitStack() as closing:
        output = closing.enter_context(log.open("wb")) if log else None
        return subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            process_group=0,
        )


def end_on_sigterm() -> None:
    """Make SIGTERM what Ctrl-C is: an exception on its way through everything to be closed."""
    signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def stop(process: subprocess.Popen[bytes], *, how: signal.Signals, patience_s: float) -> None:
    """End a child and reap it; one that does not listen is killed."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def bound(port: int, *, shared: bool = False) -> socket.socket:
    """Bind a loopback socket; `shared` lets a second launcher listen on the same port.

    Raises:
        OSError: The port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError:
        listener.close()
        raise
    return listener


def probe(
    port: int, path: str, *, timeout_s: float = 2, headers: Mapping[str, str] | None = None
) -> int:
    """Return the status with which somebody on this machine answers a GET; 0 is no answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def tail(log: Path, *, lines: int = 15) -> str:
    """Return the end of a log, for an error that a reader can act on at once."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=lines)).rstrip()
    except FileNotFoundError:
        return ""
