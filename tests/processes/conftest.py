"""Processes see only what is committed: every test here has a database of its own to flush."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import pytest

from tests.fakes.upstream import ScriptedUpstream

Served = TypeVar("Served")


class InThread(Generic[Served]):
    """An asynchronous context manager in a thread of its own, for tests that block."""

    def __init__(self, served: Served) -> None:
        self.served: Any = served
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        entered: Served = self._run(self.served.__aenter__())
        return entered

    def call(self, function: Callable[[], None]) -> None:
        """Call something in that thread, soon."""
        self._loop.call_soon_threadsafe(function)

    def __exit__(self, *_: object) -> None:
        self._run(self.served.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class ThreadedUpstream(InThread[ScriptedUpstream]):
    """The scripted upstream for tests that block."""

    def __init__(self) -> None:
        super().__init__(ScriptedUpstream())


@pytest.fixture
def provider():
    with ThreadedUpstream() as scripted:
        yield scripted


@pytest.fixture
def server_log(tmp_path):
    return tmp_path / "server.log"


@pytest.fixture
def server(fleet):
    """A running server on this test's database."""
    return fleet.start()
