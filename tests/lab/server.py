"""A real server process on this test's database, for what only a process can show."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from django.conf import settings
from django.db import connection

from tests import serving_role

ROOT = Path(settings.BASE_DIR)


def database_url(user: str = "", password: str = "") -> str:
    """Return the URL of the database the tests run on, for its owner or for somebody else."""
    database = connection.settings_dict
    known = quote(user or database["USER"]), quote(password or str(database["PASSWORD"] or ""), "")
    place = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return f"postgresql://{known[0]}:{known[1]}@{place}"


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "airi_server.settings.dev",
        "DATABASE_URL": database_url(serving_role.ROLE, serving_role.PASSWORD),
        "REDIS_PREFIX": f"{settings.REDIS_PREFIX}-process",
        "LOG_LEVEL": "INFO",
        **more,
    }


class ServerProcess:
    """`uvicorn airi_server.asgi:application`; use as a context manager."""

    def __init__(self, log: Path, **environ: str) -> None:
        self.log = log
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"

    def start(self) -> ServerProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "uvicorn", "airi_server.asgi:application",
                    "--port", str(self.port), "--no-access-log",
                    "--http", "airi_server.web.http_protocols:HttpProtocol",
                    "--ws", "airi_server.web.http_protocols:WebSocketProtocol",
                ],
                cwd=ROOT,
                env=environment(**self._environ),
                stdout=log,
                stderr=log,
            )  # fmt: skip
        # Longer than a machine takes that has every other test to run as well.
        for _ in range(1200):
            if self._process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            try:
                with urlopen(f"{self.base_url}/readyz", timeout=2):
                    return self
            except OSError:
                time.sleep(0.05)
        self.end(signal.SIGKILL)
        raise RuntimeError(f"not ready in time: {self.log.read_text()}")

    def end(self, signal_number: int, *, within_s: float = 20) -> int:
        """Send a signal to this process and return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal_number)
        return self._process.wait(within_s)

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)


def manage(
    *arguments: str, timeout_s: float = 60, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` as an operator would."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
