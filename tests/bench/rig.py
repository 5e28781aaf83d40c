"""Everything a run measures, started for it and stopped after it: each part its own process."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from airi_server.launch import private, processes
from airi_server.launch.stack import Stack
from airi_server.launch.supervisor import STATE
from tests.bench import cpu
from tests.bench.books import Books
from tests.bench.servers import Servers, spawn

__all__ = ["Rig", "running", "spawn"]

USERS: Final = 64
_UNWANTED: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http_proxy", "https_proxy", "HTTP_PROXY",
                    "HTTPS_PROXY", "ALL_PROXY", "all_proxy")  # fmt: skip


class Rig:
    """The running parts. `keys` belong to one user each; `kinds` are their processes by kind.

    `servers` is the group that every run has, of one process unless somebody lets it grow.
    """

    def __init__(self, directory: Path, stack: Stack) -> None:
        self.directory = directory
        self.database_url = stack.database_url
        self.books = Books(stack.database_url)
        self.keys: list[str] = []
        self.upstream_port = 0
        self._counts = directory / "counts"
        self._counts.mkdir()
        self.servers = Servers(self._counts)
        supervisor = int(private.read(directory / STATE)["supervisor_pid"])
        seen = cpu.Processes()
        kept = {seen.names[pid]: pid for pid in seen.children(supervisor)}
        postgres = next(pid for name, pid in kept.items() if name.startswith("postgres"))
        valkey = next(pid for name, pid in kept.items() if pid != postgres)
        self.kinds: dict[str, list[int]] = {
            "server": self.servers.pids, "postgres": [postgres], "valkey": [valkey],
            "upstream": [],
        }  # fmt: skip

    @property
    def port(self) -> int:
        return self.servers.port

    def asked(self) -> Mapping[str, int]:
        """Return how many statements and Redis commands the servers have sent so far."""
        return self.servers.counted()

    def others(self, *, log: Path | None = None, **environment: str) -> Servers:
        """Return another group of servers, to be used as a context manager; none runs yet."""
        return Servers(self._counts, environment=environment, log=log)


@contextlib.contextmanager
def running(*, upstream_port: int) -> Iterator[Rig]:
    """Start storage, upstream and one server process; seed; stop everything at the end."""
    home = private.directory(processes.ROOT / ".data")
    directory = home / f"bench-{os.getpid()}-{secrets.token_hex(3)}"
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, directory, ignore_errors=True)
        stack = ending.enter_context(Stack(directory, durable=True))
        rig = Rig(directory, stack)
        _set_environment(directory, stack)
        ending.callback(lambda: rig.books.close())  # noqa: PLW0108  `rows` opens them again
        _start_upstream(rig, ending, upstream_port)
        _seed(rig)
        ending.enter_context(rig.servers).grow(1)
        yield rig


def _start_upstream(rig: Rig, ending: contextlib.ExitStack, port: int) -> None:
    with _upstream_socket(port) as listener:
        listener.listen(1024)
        rig.upstream_port = listener.getsockname()[1]
        upstream = spawn(
            "bench.upstream", f"--socket={listener.fileno()}", pass_fds=[listener.fileno()]
        )
    ending.callback(processes.stop, upstream, how=signal.SIGTERM, patience_s=5)
    rig.kinds["upstream"].append(upstream.pid)


def _upstream_socket(port: int) -> socket.socket:
    try:
        return processes.bound(port)
    except OSError as error:
        raise SystemExit(f"Port {port} for the upstream: {error.strerror}.") from error


def _set_environment(directory: Path, stack: Stack) -> None:
    """Settings of production, of which only the storage is this run's own."""
    for name in _UNWANTED:
        os.environ.pop(name, None)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="airi_server.settings.production",
        DATABASE_URL=stack.database_url,
        REDIS_URL=stack.redis_url,
        ALLOWED_HOSTS=processes.LOOPBACK,
        SECRET_KEY=secrets.token_urlsafe(48),
        LLM_ROUTER_MASTER_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
        LOG_LEVEL="WARNING",
        # WhiteNoise misses the files of collectstatic, which no case asks for.
        PYTHONWARNINGS="ignore:No directory at",
        BENCH_COUNTS=str(directory / "counts"),
    )


def _seed(rig: Rig) -> None:
    import django
    from django.core.management import call_command
    from django.db import connections

    django.setup()
    call_command("migrate", verbosity=0)
    from tests.bench import seed

    rig.keys = seed.callers(USERS)
    seed.route(f"http://{processes.LOOPBACK}:{rig.upstream_port}/v1")
    connections.close_all()
    cast("Any", connections["default"]).close_pool()
    rig.books.settle_down()
