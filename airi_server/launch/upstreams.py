"""Which upstream `chat-default` is routed to on this machine, running for as long as we do.

An OpenRouter key in the environment, else a local language model when asked for, else the demo.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airi_server.launch import demo_upstream, local_llm, private, processes

_LLM_START_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes, with what, and how to say so to the person at the terminal."""

    base_url: str
    model: str
    key: str
    description: str


@contextlib.contextmanager
def chosen(directory: Path, *, with_llm: bool) -> Iterator[Upstream]:
    """Yield the upstream of choice, started if it is ours."""
    if key := os.environ.get("OPENROUTER_KEY"):
        yield Upstream(
            "https://openrouter.ai/api/v1",
            "openai/gpt-4o-mini",
            key,
            "OpenRouter (openai/gpt-4o-mini), with the key in OPENROUTER_KEY",
        )
    elif with_llm:
        with _local_llm(directory) as upstream:
            yield upstream
    else:
        with _demo(directory) as upstream:
            yield upstream


@contextlib.contextmanager
def _demo(directory: Path) -> Iterator[Upstream]:
    kept = _kept(directory / "demo-upstream.json")
    # Listening before the child runs: a request that comes early waits for it in the queue. The
    # port is the last start's, shared with any second `./run`, so that the route stays as it is.
    with _bound(int(kept["port"])) as listener:
        listener.listen(1024)
        port = listener.getsockname()[1]
        private.write(directory / "demo-upstream.json", {**kept, "port": str(port)})
        child = processes.spawn(
            "demo_upstream",
            f"--socket={listener.fileno()}",
            log=directory / "demo-upstream.log",
            environment={demo_upstream.KEY_VARIABLE: kept["key"]},
            pass_fds=(listener.fileno(),),
        )
    with _stopped_at_the_end(child, signal.SIGTERM):
        yield Upstream(
            f"http://{processes.LOOPBACK}:{port}/v1",
            demo_upstream.MODEL,
            kept["key"],
            "a demo that ECHOES your message word by word: no language model. "
            "For a real one: ./run --llm, or OPENROUTER_KEY=... ./run",
        )


@contextlib.contextmanager
def _local_llm(directory: Path) -> Iterator[Upstream]:
    local_llm.install()
    kept = _kept(directory / "local-llm.json")
    with _bound(int(kept["port"])) as probe:
        port = probe.getsockname()[1]
    private.write(directory / "local-llm.json", {**kept, "port": str(port)})
    log = directory / "local-llm.log"
    child = processes.spawn(
        "local_llm",
        f"--port={port}",
        log=log,
        environment={local_llm.KEY_VARIABLE: kept["key"]},
    )
    with _stopped_at_the_end(child, signal.SIGKILL):
        _wait_for_llm(child, port, kept["key"], log)
        yield Upstream(
            f"http://{processes.LOOPBACK}:{port}/v1",
            local_llm.MODEL,
            kept["key"],
            f"llama.cpp on this machine, with {local_llm.MODEL}",
        )


def _kept(file: Path) -> dict[str, str]:
    return {"port": "0", "key": f"sk-local-{secrets.token_hex(24)}", **private.read(file)}


def _bound(port: int) -> socket.socket:
    try:
        return processes.bound(port, shared=True)
    except OSError:
        return processes.bound(0, shared=True)


@contextlib.contextmanager
def _stopped_at_the_end(child: subprocess.Popen[bytes], how: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        processes.stop(child, how=how, patience_s=5)


def _wait_for_llm(child: subprocess.Popen[bytes], port: int, key: str, log: Path) -> None:
    deadline = time.monotonic() + _LLM_START_S
    while not _lists_models(port, key):
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The local language model did not start:\n{processes.tail(log)}")
        time.sleep(0.1)


def _lists_models(port: int, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    return processes.probe(port, "/v1/models", headers=headers) == 200
