"""Servers and commands as processes, forked by a nursery (see nursery.py).

Of a cold start they leave out importing, and uvicorn's command line: `server.py` has both.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from django.conf import settings

from airi_server.launch import processes
from tests.lab.server import ROOT, environment


class Nursery:
    """Use as a context manager. What its children hear in Redis is what this process hears."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._logs = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.nursery", str(os.getpid())],
            cwd=ROOT,
            env=environment(REDIS_PREFIX=settings.REDIS_PREFIX),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == {"ready": True}
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, **order: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def log(self) -> Path:
        self._logs += 1
        return self._directory / f"{self._logs}.log"

    def _read(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class Instance:
    """One server; `port` lets it come back where another has been."""

    def __init__(self, nursery: Nursery, surroundings: dict[str, Any], port: int = 0) -> None:
        self._nursery = nursery
        self.port = port or processes.free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = nursery.log()
        self.status: int | None = None
        order = {"kind": "serve", "port": self.port, "log": str(self.log), **surroundings}
        self.pid: int = nursery.ask(**order)["pid"]

    def probe(self, path: str = "/readyz") -> int:
        """Return the status of a probe; 0 is no answer."""
        return processes.probe(self.port, path)

    def ready(self, path: str = "/readyz") -> Instance:
        until = time.monotonic() + 60
        while self.probe(path) != 200:
            if time.monotonic() > until or self.wait(0.01) is not None:
                raise RuntimeError(self.log.read_text())
        return self

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float = 20) -> int | None:
        """Return how it ended; None if it still runs."""
        if self.status is None:
            self.status = self._nursery.ask(kind="wait", pid=self.pid, within_s=within_s)["status"]
        return self.status

    def end(self, number: int = signal.SIGKILL, *, within_s: float = 40) -> int | None:
        if self.status is None:
            self.send(number)
        return self.wait(within_s)


class Fleet:
    """Use as a context manager: servers and commands in the same surroundings; all end with it."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._instances: list[Instance] = []
        self.application = "airi_server.asgi:application"
        self.database: dict[str, Any] = {}
        # A reconciler gives instances a minute to come back after PostgreSQL has: not here.
        self.patches: dict[str, Any] = {"billing.reconciliation.RESTART_GRACE_S": 0}

    def _surroundings(self, clock_shift_s: float, settings: dict[str, Any]) -> dict[str, Any]:
        named = {f"settings.{name}": value for name, value in settings.items()}
        return {
            "database": self.database,
            "patches": {**self.patches, **named},
            "clock_shift_s": clock_shift_s,
        }

    def launch(self, *, port: int = 0, clock_shift_s: float = 0, **patches: Any) -> Instance:
        """Start a server without waiting for it; patches name settings."""
        surroundings = self._surroundings(clock_shift_s, patches)
        surroundings["application"] = self.application
        self._instances.append(Instance(self._nursery, surroundings, port))
        return self._instances[-1]

    def start(self, **how: Any) -> Instance:
        return self.launch(**how).ready()

    def manage(self, *arguments: str, within_s: float = 60) -> tuple[int | None, str]:
        """Run `manage.py` to its end; return its status and everything it said."""
        return self._run({"kind": "manage", "arguments": arguments}, within_s)

    def call(self, function: str, *arguments: str, within_s: float = 20, **patches: Any) -> None:
        """Have another process call a function, named `module:name`; patches name settings."""
        order = {"kind": "call", "function": function, "arguments": arguments}
        status, said = self._run(order, within_s, **patches)
        assert status == 0, said

    def _run(
        self, order: dict[str, Any], within_s: float, **patches: Any
    ) -> tuple[int | None, str]:
        log = self._nursery.log()
        surroundings = self._surroundings(0, patches)
        pid = self._nursery.ask(**order, **surroundings, log=str(log))["pid"]
        status = self._nursery.ask(kind="wait", pid=pid, within_s=within_s)["status"]
        return status, log.read_text()

    def reconcile(self, *arguments: str) -> str:
        """Run `reconcile-usage`, which has to agree; return what it said."""
        status, said = self.manage("reconcile-usage", *arguments)
        assert status == 0, said
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        for each in self._instances:
            if each.status is None:
                each.send(signal.SIGCONT)
                each.end()
