"""`manage.py serve` as processes: it serves, replaces, and stops in order."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airi_server.launch import processes
from tests.lab.server import ROOT, environment, manage

pytestmark = pytest.mark.django_db(transaction=True)
BODY = 1_000
IMPORTING_S = 10.0
"""From the start of the command to that of its workers, at most, on a machine with other work."""


class Serving:
    """`manage.py serve` on a free port; use as a context manager."""

    def __init__(self, log: Path, *options: str, **environ: str) -> None:
        self.port = processes.free_port()
        self._log = log
        self._began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--port", str(self.port), *options],
                cwd=ROOT,
                env=environment(**environ),
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._process.kill()
        self._process.wait(10)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[int]:
        pid = self._process.pid
        try:
            return [
                int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ]
        except FileNotFoundError:
            return []

    def ready(self) -> Serving:
        # The socket listens before a worker accepts: one question waits for its answer.
        until = time.monotonic() + 60
        while processes.probe(self.port, "/readyz", timeout_s=60) != 200:
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError(self.log)
        return self

    def slow(self) -> http.client.HTTPConnection:
        """Begin a request whose body is still to come, when the server has taken its head."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.putrequest("POST", "/api/v1/auth/sign-in/email")
        line.putheader("Content-Type", "application/json")
        line.putheader("Content-Length", str(BODY))
        line.putheader("Expect", "100-continue")
        line.endheaders()
        assert line.sock.recv(100).startswith(b"HTTP/1.1 100")
        return line

    def tell(self, number: int) -> None:
        self._process.send_signal(number)

    def status(self, *, within_s: float = 30) -> int:
        return self._process.wait(within_s)

    def trusted(self) -> None:
        """Wait until a worker that falls is not taken for one that cannot start."""
        time.sleep(max(0.0, self._began + 5.5 - time.monotonic() + IMPORTING_S))

    def stops_listening(self) -> None:
        until = time.monotonic() + 20
        while processes.probe(self.port, "/livez"):
            assert time.monotonic() < until


def finish(line: http.client.HTTPConnection) -> int:
    line.send(json.dumps({"a": ""}).encode().ljust(BODY))
    answer = line.getresponse()
    answer.read()
    return answer.status


def gone(pids: list[int]) -> None:
    until = time.monotonic() + 20
    while any(map(runs, pids)):
        assert time.monotonic() < until


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def children(serving: Serving, count: int, *, without: int = 0) -> list[int]:
    until = time.monotonic() + 30
    while True:
        pids = [each for each in serving.workers() if each != without]
        if len(pids) == count:
            return pids
        assert time.monotonic() < until, serving.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_under_way_finishes(tmp_path, workers):
    with Serving(tmp_path / "log", "--workers", workers) as serving:
        serving.ready()
        line = serving.slow()

        serving.tell(signal.SIGTERM)
        serving.stops_listening()

        assert finish(line) < 500
        assert serving.status() == 0
        assert "W002" not in serving.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_no_failure(tmp_path, workers):
    with Serving(tmp_path / "log", "--workers", workers) as serving:
        serving.ready()
        serving.tell(signal.SIGINT)

        assert serving.status() == 0


def test_one_worker_is_the_process_itself(tmp_path):
    with Serving(tmp_path / "log") as serving:
        serving.ready()

        assert serving.workers() == []


class TestSeveral:
    def test_one_that_falls_is_replaced(self, tmp_path, monkeypatch):
        with Serving(tmp_path / "log", "--workers", "2") as serving:
            serving.ready()
            fallen, *_ = children(serving, 2)
            serving.trusted()
            os.kill(fallen, signal.SIGKILL)

            children(serving, 2, without=fallen)
            serving.ready()
            assert "starting another" in serving.log

    def test_one_that_dies_at_once_ends_all(self, tmp_path):
        with Serving(tmp_path / "log", "--workers", "2") as serving:
            dead, other = children(serving, 2)
            os.kill(dead, signal.SIGKILL)

            assert serving.status() == 1
            assert "right after its start" in serving.log
            gone([other])

    def test_they_do_not_outlive_their_parent(self, tmp_path):
        with Serving(tmp_path / "log", "--workers", "2") as serving:
            serving.ready()
            pids = children(serving, 2)
            serving.tell(signal.SIGKILL)

            gone(pids)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--port", "0"], "--port: '0' is no whole number from 1 to 65535"),
            (["--workers", "many"], "--workers: 'many' is no whole number from 1 to 64"),
            (["--host", "nowhere.invalid"], "--host nowhere.invalid: "),
            (["--loud"], "unrecognized arguments: --loud"),
        ],
    )
    def test_an_option_that_cannot_be(self, options, said):
        refused = manage("serve", *options)

        assert refused.returncode != 0
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_a_port_that_is_taken(self):
        with processes.bound(0) as taken:
            taken.listen()
            port = str(taken.getsockname()[1])
            refused = manage("serve", "--port", port)

        assert refused.returncode == 1
        assert f"127.0.0.1 port {port}: Address already in use." in refused.stderr

    def test_settings_of_a_deployment_are_what_it_starts_with(self):
        surroundings = environment()
        del surroundings["DJANGO_SETTINGS_MODULE"]
        refused = subprocess.run(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env=surroundings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert refused.returncode == 1
        assert "ALLOWED_HOSTS" in refused.stderr


def test_another_server_is_warned_of(tmp_path):
    port = processes.free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        foreign = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "airi_server.asgi:application", f"--port={port}"],
            cwd=ROOT,
            env=environment(),
            stderr=output,
        )
    try:
        until = time.monotonic() + 60
        while processes.probe(port, "/livez") != 200:
            assert time.monotonic() < until
            assert foreign.poll() is None, log.read_text()
    finally:
        foreign.kill()
        foreign.wait(10)

    assert "airi.W002" in log.read_text()
