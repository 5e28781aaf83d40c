"""Processes see only what is committed: every test here has a database of its own to flush."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.processes.server import ServerProcess


class ThreadedUpstream:
    """The scripted upstream in a thread of its own, for tests that block."""

    def __init__(self) -> None:
        self.scripted = ScriptedUpstream()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> ScriptedUpstream:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.scripted.__aenter__(), self._loop).result(10)
        return self.scripted

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.scripted.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def provider():
    with ThreadedUpstream() as scripted:
        yield scripted


@pytest.fixture
def server_log(tmp_path):
    return tmp_path / "server.log"


@pytest.fixture
def server(transactional_db, server_log):
    """A running server on this test's database."""
    with ServerProcess(server_log) as running:
        yield running
