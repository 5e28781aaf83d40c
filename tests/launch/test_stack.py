"""The stack keeps its promises to whoever comes, stays, leaves or is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from airi_server.launch import postgres, private, privileges, processes, stack

USER_SCRIPT = """
import sys, time
from airi_server.launch.stack import Stack
with Stack(sys.argv[1]) as stack:
    print(stack.database_url, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all tests: each finds it stopped and leaves it stopped."""
    directory = tmp_path_factory.mktemp("stack") / "data"
    with stack.Stack(directory, durable=False):
        return directory


@contextlib.contextmanager
def user(directory: Path, script: str = USER_SCRIPT) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the same directory; yields it and the line it says."""
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(
        command, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def eventually(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes_of(directory: Path) -> list[str]:
    """Pids of every process whose command line or working directory names the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            names = (entry / "cmdline").read_bytes() + os.fsencode((entry / "cwd").readlink())
            if os.fsencode(directory) in names and entry.name != str(os.getpid()):
                found.append(entry.name)
    return found


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_both_servers_answer_only_with_the_password(directory: Path) -> None:
    with stack.Stack(directory, durable=False) as running:
        assert execute(running.database_url, "SELECT current_database()") == [("airi",)]
        with redis.Redis.from_url(running.redis_url) as client:
            assert client.ping()

        password = running.database_url.split(":")[2].split("@")[0]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(running.database_url.replace(password, "wrong"))
        without = running.redis_url.split("@")[1]
        with redis.Redis.from_url(f"redis://{without}") as stranger:
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()


def test_what_is_secret_is_closed_to_others(directory: Path) -> None:
    with stack.Stack(directory, durable=False):
        modes = {
            name: stat.S_IMODE((directory / name).stat().st_mode)
            for name in (".", "stack.json", "postgres", "postgres/airi.password")
        }
    assert modes == {
        ".": 0o700,
        "stack.json": 0o600,
        "postgres": 0o700,
        "postgres/airi.password": 0o600,
    }


def test_unless_told_otherwise_a_commit_is_on_the_disk(directory: Path) -> None:
    wanted = ("fsync", "synchronous_commit", "full_page_writes")
    with stack.Stack(directory) as running:
        found = {name: execute(running.database_url, f"SHOW {name}") for name in wanted}

    assert found == {name: [("on",)] for name in wanted}


def test_the_last_to_leave_stops_everything(directory: Path) -> None:
    with stack.Stack(directory, durable=False) as first:
        with stack.Stack(directory) as second:
            assert second.database_url == first.database_url
        assert execute(first.database_url, "SELECT 1") == [(1,)]
        assert first.is_running()

    assert processes_of(directory) == []
    assert not (directory / "stack.json").exists()


def test_the_starter_may_leave_first(directory: Path) -> None:
    with user(directory) as (starter, url):
        with stack.Stack(directory) as guest:
            assert guest.database_url == url
            starter.kill()
            starter.wait()
            assert execute(guest.database_url, "SELECT 1") == [(1,)]
    assert processes_of(directory) == []


def test_a_killed_user_leaves_nothing_and_loses_nothing(directory: Path) -> None:
    with user(directory) as (process, url):
        execute(url, "CREATE TABLE killed_user AS SELECT 1 AS one")
        process.kill()
        process.wait()
        assert eventually(lambda: processes_of(directory) == [])

    with stack.Stack(directory) as again:
        assert execute(again.database_url, "SELECT one FROM killed_user") == [(1,)]


def test_a_child_may_use_the_stack_longer_than_its_killed_parent(directory: Path) -> None:
    script = """
import subprocess, sys, time
from airi_server.launch.stack import Stack
with Stack(sys.argv[1]) as stack:
    child = subprocess.Popen(["sleep", "60"], pass_fds=stack.holds())
    print(stack.database_url, child.pid, flush=True)
    time.sleep(60)
"""
    with user(directory, script) as (parent, said):
        url, child = said.split()
        parent.kill()
        parent.wait()
        time.sleep(0.3)
        assert execute(url, "SELECT 1") == [(1,)]
        os.kill(int(child), signal.SIGKILL)
    assert eventually(lambda: processes_of(directory) == [])


def test_a_killed_supervisor_is_replaced(directory: Path) -> None:
    with stack.Stack(directory, durable=False) as lost:
        supervisor = int(private.read(directory / "stack.json")["supervisor_pid"])
        os.kill(supervisor, signal.SIGKILL)
        assert eventually(lambda: not lost.is_running())
        with stack.Stack(directory, durable=False) as found:
            assert execute(found.database_url, "SELECT 1") == [(1,)]
    assert processes_of(directory) == []


def test_everything_killed_at_once_starts_again(directory: Path) -> None:
    with user(directory) as (process, url):
        execute(url, "CREATE TABLE all_killed AS SELECT 1 AS one")
        for pid in [str(process.pid), *processes_of(directory)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        process.wait()
        assert eventually(lambda: processes_of(directory) == [])

    with stack.Stack(directory, durable=False) as again:
        assert execute(again.database_url, "SELECT one FROM all_killed") == [(1,)]


def test_a_pid_given_to_somebody_else_does_not_stop_the_start(directory: Path) -> None:
    with stack.Stack(directory, durable=False):
        pid_file = directory / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")

    with stack.Stack(directory, durable=False) as again:
        assert execute(again.database_url, "SELECT 1") == [(1,)]


def test_many_arrive_at_once_and_share(directory: Path) -> None:
    with contextlib.ExitStack() as users:
        commands = [[sys.executable, "-c", USER_SCRIPT, str(directory)] for _ in range(4)]
        started = [
            users.enter_context(
                subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True)
            )
            for command in commands
        ]
        urls = {process.stdout.readline() for process in started if process.stdout}
        for process in started:
            process.kill()
    assert len(urls) == 1
    assert eventually(lambda: processes_of(directory) == [])


def test_a_failed_start_shows_the_log(directory: Path) -> None:
    settings = directory / "postgres" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(stack.StackFailed, match="no_such_setting"):
            stack.Stack(directory).start()
    finally:
        settings.write_text(good)
    assert processes_of(directory) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_may_change_its_guise(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "for_postgres", lambda: privileges.SETUID)
    server = postgres.Postgres(directory, durable=False)
    try:
        server.start()
        server.wait()
        assert execute(server.url, "SELECT 1") == [(1,)]
    finally:
        server.stop()
    assert (directory / "postgres").stat().st_uid == privileges.NOBODY

    with stack.Stack(directory) as as_before:
        assert execute(as_before.database_url, "SELECT 1") == [(1,)]
