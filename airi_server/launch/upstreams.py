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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airi_server.launch import demo_upstream, local_llm, private, processes

DEMO: Final = "demo-upstream.json"
LLM: Final = "local-llm.json"
_LLM_START_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class LaunchUpstream:
    """Where a request goes, with what, and how to say so to the person at the terminal."""

    base_url: str
    model: str
    key: str
    description: str


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Those of ours that run, and the one that `chat-default` is to go to from now on.

    Args:
        running: By their base URLs.
        asked_for: None where nobody asked for another than the routes have.
    """

    running: dict[str, LaunchUpstream]
    asked_for: LaunchUpstream | None


@contextlib.contextmanager
def chosen(
    directory: Path, *, with_llm: bool, routed: Collection[str] | None = None
) -> Iterator[Upstreams]:
    """Yield the upstream of choice, started if it is ours, as are those that have requests.

    Args:
        directory: Where ports and keys of ours are kept.
        with_llm: Whether the local language model was asked for.
        routed: The base URLs that the routes in force lead to; None if there never were any.
    """
    key = os.environ.get("OPENROUTER_KEY")
    if key and with_llm:
        print("./run: OPENROUTER_KEY is set and wins over --llm; unset it for the local language "
              "model.", flush=True)  # fmt: skip
    wants_llm = with_llm and not key
    wants_demo = routed is None and not key and not with_llm
    asked_for = _openrouter(key) if key else None
    running = {}
    with contextlib.ExitStack() as started:
        for file, start, is_wanted in ((LLM, _local_llm, wants_llm), (DEMO, _demo, wants_demo)):
            was_at = _base_url(private.read(directory / file).get("port", "0"))
            if not is_wanted and was_at not in (routed or ()):
                continue
            ours = started.enter_context(start(directory))
            running[ours.base_url] = ours
            # One that found its port taken is somewhere else now, where no route leads.
            if is_wanted or ours.base_url != was_at:
                asked_for = asked_for or ours
        yield Upstreams(running, asked_for)


def _openrouter(key: str) -> LaunchUpstream:
    return LaunchUpstream(
        "https://openrouter.ai/api/v1",
        "openai/gpt-4o-mini",
        key,
        "OpenRouter (openai/gpt-4o-mini), with the key in OPENROUTER_KEY",
    )


def _base_url(port: int | str) -> str:
    return f"http://{processes.LOOPBACK}:{port}/v1"


@contextlib.contextmanager
def _demo(directory: Path) -> Iterator[LaunchUpstream]:
    kept = _kept(directory / DEMO)
    # Listening before the child runs: a request that comes early waits for it in the queue. The
    # port is the last start's, shared with any second `./run`, so that the route stays as it is.
    with _bound(int(kept["port"])) as listener:
        listener.listen(1024)
        port = listener.getsockname()[1]
        private.write(directory / DEMO, {**kept, "port": str(port)})
        child = processes.spawn(
            "demo_upstream",
            f"--socket={listener.fileno()}",
            log=directory / "demo-upstream.log",
            environment={demo_upstream.KEY_VARIABLE: kept["key"]},
            pass_fds=(listener.fileno(),),
        )
    with _stopped_at_the_end(child, signal.SIGTERM):
        yield LaunchUpstream(
            _base_url(port),
            demo_upstream.MODEL,
            kept["key"],
            "a demo that ECHOES your message word by word: no language model. "
            "For a real one: ./run --llm, or OPENROUTER_KEY=... ./run",
        )


@contextlib.contextmanager
def _local_llm(directory: Path) -> Iterator[LaunchUpstream]:
    local_llm.install()
    kept = _kept(directory / LLM)
    with _bound(int(kept["port"])) as probe:
        port = probe.getsockname()[1]
    private.write(directory / LLM, {**kept, "port": str(port)})
    log = directory / "local-llm.log"
    child = processes.spawn(
        "local_llm",
        f"--port={port}",
        log=log,
        environment={local_llm.KEY_VARIABLE: kept["key"]},
    )
    with _stopped_at_the_end(child, signal.SIGKILL):
        _wait_for_llm(child, port, kept["key"], log)
        yield LaunchUpstream(
            _base_url(port),
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
