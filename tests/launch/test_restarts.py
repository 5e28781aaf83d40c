"""`./run` twice at once, interrupted, and again: what an operator set and what users paid stays.

One story, told by real processes: each start takes seconds.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from airi_server.launch import private, processes

_WITHIN_S = 180
_LEAVE = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "LLM_ROUTER_MASTER_KEY", "API_SERVER_URL",
          "DJANGO_SETTINGS_MODULE", "OPENROUTER_KEY")  # fmt: skip
_OPEN = "SELECT count(*) FROM llm_request_log WHERE settled_at IS NULL"
_DEFAULT = """
INSERT INTO config_kv (name, value, note, changed_by, changed_at)
VALUES ('DEFAULT_CHAT_MODEL', '"mine"', '', 'operator', now())
"""
_SET = """
SELECT (SELECT published_by FROM router_revision ORDER BY number DESC LIMIT 1),
       (SELECT value #>> '{}' FROM config_kv WHERE name = 'DEFAULT_CHAT_MODEL'
        ORDER BY id DESC LIMIT 1)
"""


class Run:
    """One `./run`, called from a place of the test's own, and what it says line by line."""

    def __init__(self, place: Path) -> None:
        self.port = processes.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [*_command("serve"), "--data", "data", "--port", str(self.port)],
            cwd=processes.ROOT,
            env=_environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def says(self, words: str) -> str:
        """Return the line with these words when it comes, if it has not come yet."""
        while not any(words in line for line in self.said):
            line = self._lines.get(timeout=_WITHIN_S)
            assert line, "".join(self.said)
            self.said.append(line)
        return next(line for line in self.said if words in line)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(_WITHIN_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(_WITHIN_S)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "airi_server.launch", name]


def _environment(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _LEAVE}
    return kept | {"AIRI_CALLED_FROM": str(place), "PYTHONUNBUFFERED": "1"}


@contextmanager
def run(place: Path) -> Iterator[Run]:
    running = Run(place)
    try:
        yield running
    finally:
        running.close()


def call(place: Path, name: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run a command to its end; return how it ended and what it said of errors."""
    done = subprocess.run(
        [*_command(name), "--data", "data", *arguments],
        cwd=processes.ROOT,
        env=_environment(place) | environ,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
        check=False,
    )
    return done.returncode, done.stderr


def ask(url: str, key: str, words: str, *, stream: bool) -> httpx.Request:
    message = {"role": "user", "content": words}
    return httpx.Request(
        "POST",
        f"{url}/v1/chat/completions",
        json={"model": "chat-default", "stream": stream, "messages": [message]},
        headers={"Authorization": f"Bearer {key}"},
    )


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as session:
        cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_starts_leave_what_is_there_and_end_what_was_left(place: Path) -> None:
    with ExitStack() as both:
        starts = [both.enter_context(run(place)) for _ in range(2)]
        for each in starts:
            each.says("AIRI server is ready")
        kept = private.read(place / "data/demo.json")
        first, second = sorted(starts, key=lambda each: each.url != kept["base_url"])
        assert first.url == kept["base_url"]
        assert first.url in second.says(f"{place}/data is served at")

        with httpx.Client(timeout=60) as client:
            # Each opens what the other may have sealed.
            for each in starts:
                answer = client.send(ask(each.url, kept["api_key"], "one two", stream=False))
                assert answer.json()["choices"][0]["message"]["content"] == "one two"

            streamed = client.send(
                ask(first.url, kept["api_key"], "word " * 3000, stream=True), stream=True
            )
            assert next(streamed.iter_raw())
            first.process.send_signal(signal.SIGINT)
            assert "at most 25 s. Ctrl-C again stops at once." in first.says("Stopping: waiting")
            assert first.end() == 0
            assert "the next start settles" in first.says("Stopping at once")
        assert execute(kept["database_url"], _OPEN) == [(1,)]

        second.says(f"demo.json names {second.url} now")
        assert private.read(place / "data/demo.json") == kept | {"base_url": second.url}
        # On the running server's data, from where the caller stands.
        code, said = call(place, "manage", "seed-router-config", OPENROUTER_KEY="sk-or-tests")
        assert (code, said) == (0, "published: LLM_ROUTER_CONFIG\n")
        execute(kept["database_url"], _DEFAULT)
        assert second.end(signal.SIGTERM) == 0

    with run(place) as third:
        assert "chat-default is routed to https://openrouter.ai" in third.says("Upstream  ")
        settled = "ended 1 requests that the last run left open; "
        assert settled in third.says("ended ")
        again = private.read(place / "data/demo.json")
        assert execute(again["database_url"], _OPEN) == [(0,)]
        assert again["api_key"] == kept["api_key"]
        assert execute(again["database_url"], _SET) == [("manage.py", "mine")]
        assert not any("demo_upstream" in each for each in _children_of(third.process.pid))


def _children_of(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{each}/cmdline").read_text() for each in children]


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_a_server_that_was_named_and_is_not_there_is_one_line(place: Path, variable: str) -> None:
    port = processes.free_port()
    given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    parts = urlsplit(given[variable])
    given[variable] = f"{parts.scheme}://a:hunter2@127.0.0.1:{port}{parts.path}"

    code, said = call(place, "serve", "--port", str(processes.free_port()), **given)

    assert code == 1
    assert said.startswith(f"{variable} ")
    assert f"127.0.0.1:{port}" in said
    assert "hunter2" not in said
    assert said.count("\n") == 1
