"""The eventa client from npm, in the two versions that stand for the two envelopes."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from tests.processes.clients import node

# The packages that each version needs, with the one of Node that it is fed a socket by.
VERSIONS: Final = {
    "A": ("@moeru/eventa@1.0.0-beta.11", "nanoid@5.1.16", "picomatch@4.0.7", "ws@8.23.0"),
    "B": ("@moeru/eventa@1.0.0-beta.14", "nanoid@6.0.2", "picomatch@4.0.7", "ws@8.23.0"),
}
PATIENCE_S: Final = 20


class Rejected(Exception):
    """A call was rejected; the first argument is what with."""


class EventaClient:
    """A Node process with one socket. What it hears is read by a thread of ours."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pushes: queue.Queue[dict[str, Any]] = queue.Queue()
        self.faults: list[str] = []
        self._process = process
        self._numbers = itertools.count(1)
        self._calls: dict[int, Future[Any]] = {}
        self._connected: Future[bool] = Future()
        self._closed: Future[int] = Future()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def start(self, tag: str, content: Any) -> Future[Any]:
        """Call, and go on."""
        return self._told(tag=tag, content=content)

    def emit(self, event: str, body: Any, *, answer: str) -> Any:
        """Send an event as it is, and return the body of the event that answers it."""
        return self._told(event=event, content=body, answer=answer).result(PATIENCE_S)

    def _told(self, **what: Any) -> Future[Any]:
        number = next(self._numbers)
        future = self._calls[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, **what}) + "\n")
        self._process.stdin.flush()
        return future

    def call(self, tag: str, content: Any) -> Any:
        """Call and return what is answered.

        Raises:
            Rejected: With the error of the server.
        """
        return self.start(tag, content).result(PATIENCE_S)

    def send(self, chat_id: str, *messages: dict[str, str]) -> Any:
        return self.call("chat:send-messages", {"chatId": chat_id, "messages": messages})

    def pull(self, chat_id: str, after_seq: int = 0, **more: Any) -> Any:
        content = {"chatId": chat_id, "afterSeq": after_seq, **more}
        return self.call("chat:pull-messages", content)

    def pushed(self) -> dict[str, Any]:
        """Return the next push."""
        return self.pushes.get(timeout=PATIENCE_S)

    def connected(self) -> bool:
        """Wait for the first frame of the server."""
        return self._connected.result(PATIENCE_S)

    def closed(self) -> int:
        """Wait until the server has closed, and return its code."""
        return self._closed.result(PATIENCE_S)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._reading.join(PATIENCE_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        match told["is"]:
            case "connected":
                self._connected.set_result(True)
            case "pushed":
                self.pushes.put(told["body"])
            case "answered":
                self._calls.pop(told["number"]).set_result(told.get("answer"))
            case "rejected":
                self._calls.pop(told["number"]).set_exception(Rejected(told.get("error")))
            case "closed":
                self._closed.set_result(told["code"])
            case _:
                self.faults.append(told["why"])


@contextmanager
def connected(version: str, url: str) -> Iterator[EventaClient]:
    """Open a socket with a version of the client; it must find nothing that it cannot read."""
    script = node.script("eventa_client.mjs", *VERSIONS[version])
    with subprocess.Popen(
        ["node", script.name],
        cwd=script.parent,
        env={**os.environ, "SOCKET_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        client = EventaClient(process)
        try:
            yield client
        finally:
            client.end()
    assert client.faults == []
