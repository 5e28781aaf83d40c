"""Everything a run measures, started for it and stopped after it: each part its own process."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import orjson

from airi_server.launch import private, processes
from airi_server.launch.keeper import STATE
from airi_server.launch.stack import Stack
from tests.bench import cpu
from tests.bench.books import Books

USERS: Final = 64
_READY_S: Final = 30.0
_UNWANTED: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http_proxy", "https_proxy", "HTTP_PROXY",
                    "HTTPS_PROXY", "ALL_PROXY", "all_proxy")  # fmt: skip


def spawn(
    module: str, *arguments: str, pass_fds: Sequence[int] = (), pipes: bool = False
) -> subprocess.Popen[bytes]:
    """Start a module of this package, which ends with us."""
    command = [sys.executable, "-m", f"tests.bench.{module}", f"--parent={os.getpid()}"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=processes.ROOT,
        pass_fds=tuple(pass_fds),
        stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes else None,
        process_group=0,
    )


class Rig:
    """The running parts. `keys` belong to one user each; `kinds` are their processes by kind."""

    def __init__(self, directory: Path, stack: Stack, listener: socket.socket) -> None:
        self.directory = directory
        self.books = Books(stack.database_url)
        self.keys: list[str] = []
        self.upstream_port = 0
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._servers: list[subprocess.Popen[bytes]] = []
        keeper = int(private.read(directory / STATE)["keeper_pid"])
        seen = cpu.Processes()
        kept = {seen.names[pid]: pid for pid in seen.children(keeper)}
        postgres = next(pid for name, pid in kept.items() if name.startswith("postgres"))
        valkey = next(pid for name, pid in kept.items() if pid != postgres)
        self.kinds: dict[str, list[int]] = {
            "server": [], "postgres": [postgres], "valkey": [valkey], "upstream": [],
        }  # fmt: skip

    def add_servers(self, count: int) -> None:
        """Start server processes until there are `count`, all accepting from one socket."""
        for _ in range(count - len(self._servers)):
            socket_option = f"--socket={self._listener.fileno()}"
            server = spawn("server", socket_option, pass_fds=[self._listener.fileno()])
            self._servers.append(server)
            self.kinds["server"].append(server.pid)
            self._wait_until_ready(server)

    def stop_servers(self) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            processes.stop(server, how=signal.SIGTERM, patience_s=15)
        self._servers.clear()

    def asked(self) -> Mapping[str, int]:
        """Return how many statements and Redis commands the servers have sent so far."""
        totals = {"statements": 0, "redis": 0}
        for server in self._servers:
            file = self.directory / "counts" / str(server.pid)
            file.unlink(missing_ok=True)
            server.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + 5
            while not file.exists():
                if time.monotonic() > deadline or server.poll() is not None:
                    raise SystemExit("A server process does not answer.")
                time.sleep(0.002)
            for name, count in orjson.loads(file.read_bytes()).items():
                totals[name] += count
        return totals

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        """Return when a process listens: its lifespan is done and it has taken the socket."""
        deadline = time.monotonic() + _READY_S
        while not self._is_ready() or not _is_listening(server.pid, self._listener):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The server did not start; its log is above.")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(processes.LOOPBACK, self.port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _is_listening(pid: int, listener: socket.socket) -> bool:
    """Tell whether a process polls the shared socket: /proc shows what its epoll watches."""
    inode = os.fstat(listener.fileno()).st_ino
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            if f"ino:{inode:x} " in entry.read_text() + " ":
                return True
    return False


@contextlib.contextmanager
def running(*, upstream_port: int) -> Iterator[Rig]:
    """Start storage, upstream and one server process; seed; stop everything at the end."""
    home = private.directory(processes.ROOT / ".data")
    directory = home / f"bench-{os.getpid()}-{secrets.token_hex(3)}"
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, directory, ignore_errors=True)
        stack = ending.enter_context(Stack(directory, durable=True))
        (directory / "counts").mkdir()
        listener = ending.enter_context(processes.bound(0))
        listener.listen(2048)
        _set_environment(directory, stack, listener.getsockname()[1])
        rig = Rig(directory, stack, listener)
        ending.callback(rig.books.close)
        _start_upstream(rig, ending, upstream_port)
        _seed(rig)
        ending.callback(rig.stop_servers)
        rig.add_servers(1)
        yield rig


def _start_upstream(rig: Rig, ending: contextlib.ExitStack, port: int) -> None:
    with processes.bound(port) as listener:
        listener.listen(1024)
        rig.upstream_port = listener.getsockname()[1]
        upstream = spawn("upstream", f"--socket={listener.fileno()}", pass_fds=[listener.fileno()])
    ending.callback(processes.stop, upstream, how=signal.SIGTERM, patience_s=5)
    rig.kinds["upstream"].append(upstream.pid)


def _set_environment(directory: Path, stack: Stack, port: int) -> None:
    """Settings of production, of which only the storage is this run's own."""
    for name in _UNWANTED:
        os.environ.pop(name, None)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="airi_server.settings.production",
        DATABASE_URL=stack.database_url,
        REDIS_URL=stack.redis_url,
        ALLOWED_HOSTS=processes.LOOPBACK,
        API_SERVER_URL=f"http://{processes.LOOPBACK}:{port}",
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
