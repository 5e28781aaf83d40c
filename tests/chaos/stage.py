"""The machines of a run: PostgreSQL, Valkey and two instances, and what can be done to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from airi_server.launch import private, processes
from airi_server.launch.postgres import SERVING, Postgres
from airi_server.launch.valkey import Valkey
from tests.chaos.faults import INSTANCES, Fault, Kind

_READY_S: Final = 120.0
_STOP_S: Final = 20.0
_ORPHANS_S: Final = 0.5
_POSTGRES: Final = "postgres"
_VALKEY: Final = "valkey"
_TARGETS: Final = {
    Kind.REDIS_KILLED: _VALKEY,
    Kind.DATABASE_RESTARTED: _POSTGRES,
    Kind.DATABASE_CRASHED: _POSTGRES,
    Kind.DATABASE_KILLED: _POSTGRES,
}
_ENDS: Final = (Kind.INSTANCE_STOPPED, Kind.INSTANCE_KILLED)
_UNWANTED: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http_proxy", "https_proxy", "HTTP_PROXY",
                    "HTTPS_PROXY", "ALL_PROXY", "all_proxy")  # fmt: skip


class Instance:
    """One server process on a port of its own, which it keeps from life to life.

    It connects with the role that serves, as in a deployment.
    """

    def __init__(self, number: int, directory: Path, postgres: Postgres) -> None:
        self.port = processes.free_port()
        self._directory = directory
        self._postgres = postgres
        self._number = number
        self._lives = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def logs(self) -> list[Path]:
        return sorted(self._directory.glob(f"instance-{self._number}-*.log"))

    def start(self) -> None:
        self._lives += 1
        with processes.bound(self.port) as listener:
            listener.listen(256)
            self._process = processes.spawn(
                "worker",
                f"--socket={listener.fileno()}",
                log=self._directory / f"instance-{self._number}-{self._lives:03}.log",
                environment={"DATABASE_URL": self._postgres.url_of(SERVING)},
                pass_fds=(listener.fileno(),),
            )

    def wait(self) -> None:
        """Return when it is alive. Whether it is ready also depends on the storage.

        Raises:
            RuntimeError: It ended or took too long; the message has the end of its log.
        """
        assert self._process is not None
        deadline = time.monotonic() + _READY_S
        while not self._is_alive():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"No instance came up:\n{processes.tail(self.logs[-1])}")
            time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        if self._process is not None:
            processes.stop(self._process, how=how, patience_s=_STOP_S)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _is_alive(self) -> bool:
        return processes.probe(self.port, "/livez") == 200


class Stage:
    """Everything that can fail. Nothing here is tried twice: what does not come up ends the run.

    Attributes:
        ports: Where a balancer that asks for readiness sends connections. One that starts is not
            among them: its socket takes connections long before anybody answers.
    """

    def __init__(self, directory: Path) -> None:
        self._postgres = Postgres(directory, durable=True)
        self._valkey = Valkey(directory)
        self.instances = [
            Instance(number, directory, self._postgres) for number in range(INSTANCES)
        ]
        self.ports = [instance.port for instance in self.instances]
        self._locks = {target: asyncio.Lock() for target in (_POSTGRES, _VALKEY, *range(INSTANCES))}
        # A child is signalled when the thread that started it ends: these stay to the end.
        self._hands = ThreadPoolExecutor(max_workers=8)

    async def start_storage(self) -> None:
        await self._do(self._postgres.start)
        await self._do(self._valkey.start)
        await self._do(self._postgres.wait)
        await self._do(self._valkey.wait)
        _set_environment(self._postgres.url, self._valkey.url)

    async def start_instances(self) -> None:
        for instance in self.instances:
            await self._do(instance.start)
        for instance in self.instances:
            await self._do(instance.wait)

    async def stop(self) -> None:
        for instance in self.instances:
            instance.signal(signal.SIGCONT)
            await self._do(partial(instance.end, signal.SIGTERM))
        for server in (self._valkey, self._postgres):
            with contextlib.suppress(AttributeError):  # it was never started
                await self._do(server.stop)
        self._hands.shutdown()

    async def inflict(self, fault: Fault) -> bool:
        """Let a fault happen and mend it.

        Returns:
            False if it was left out: its target still has another one, or it would end the last
            instance that serves. On a busy machine one takes long to come up.
        """
        target = _TARGETS.get(fault.kind, fault.instance)
        others = (self._locks[n] for n in range(INSTANCES) if n != fault.instance)
        is_last = fault.kind in _ENDS and any(lock.locked() for lock in others)
        if is_last or self._locks[target].locked():
            return False
        async with self._locks[target]:
            await self._happen(fault)
        return True

    async def _happen(self, fault: Fault) -> None:
        instance = self.instances[fault.instance]
        match fault.kind:
            case Kind.REDIS_KILLED:
                await self._restart(self._valkey, signal.SIGKILL, fault.lasts_s)
            case Kind.DATABASE_RESTARTED:
                await self._restart(self._postgres, signal.SIGINT, fault.lasts_s)
            case Kind.DATABASE_CRASHED:
                await self._restart(self._postgres, signal.SIGQUIT, fault.lasts_s)
            case Kind.DATABASE_KILLED:
                # Its children notice by themselves; until they have, the next one cannot start.
                await self._restart(self._postgres, signal.SIGKILL, max(_ORPHANS_S, fault.lasts_s))
            case Kind.INSTANCE_PAUSED:
                instance.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                instance.signal(signal.SIGCONT)
            case Kind.INSTANCE_STOPPED:
                await self._replace(instance, signal.SIGTERM, fault.lasts_s)
            case Kind.INSTANCE_KILLED:
                await self._replace(instance, signal.SIGKILL, fault.lasts_s)

    async def _restart(
        self, server: Postgres | Valkey, how: signal.Signals, lasts_s: float
    ) -> None:
        await self._do(lambda: processes.stop(server._process, how=how, patience_s=_STOP_S))
        await asyncio.sleep(lasts_s)
        await self._do(server.start)
        await self._do(server.wait)

    async def _replace(self, instance: Instance, how: signal.Signals, lasts_s: float) -> None:
        await self._do(partial(instance.end, how))
        await asyncio.sleep(lasts_s)
        self.ports.remove(instance.port)
        await self._do(instance.start)
        await self._do(instance.wait)
        self.ports.append(instance.port)

    async def _do(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._hands, work)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Stage]:
    """Start the storage; whoever uses it prepares the database, then starts the instances."""
    private.directory(directory)
    stage = Stage(directory)
    try:
        await stage.start_storage()
        yield stage
    finally:
        await stage.stop()


def data_directory() -> Path:
    """Return a fresh place below the project's own data."""
    home = private.directory(processes.ROOT / ".data")
    return home / f"chaos-{os.getpid()}-{secrets.token_hex(3)}"


def clear(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _set_environment(database_url: str, redis_url: str) -> None:
    """Settings of production, of which only the storage and the haste are this run's own."""
    for name in _UNWANTED:
        os.environ.pop(name, None)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="airi_server.settings.production",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        ALLOWED_HOSTS=processes.LOOPBACK,
        API_SERVER_URL=f"http://{processes.LOOPBACK}",
        SECURE_SSL_REDIRECT="false",
        SECRET_KEY=secrets.token_urlsafe(48),
        LLM_ROUTER_MASTER_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
        SHUTDOWN_DELAY_S="1",
        SHUTDOWN_GRACE_S="5",
        LOG_LEVEL="WARNING",
        # WhiteNoise misses the files of collectstatic, which nobody asks for.
        PYTHONWARNINGS="ignore:No directory at",
    )
