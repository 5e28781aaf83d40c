"""`./run`: bring everything up, seed the demo, serve, and take everything down again."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final

from airi_server.launch import environment, private, processes, ready, upstreams, workers

if TYPE_CHECKING:
    from airi_server.launch.demo import Demo

_BACKLOG: Final = 2048


def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C or SIGTERM, leaving no process behind."""
    options = _parser().parse_args(arguments)
    processes.end_on_sigterm()
    with contextlib.suppress(KeyboardInterrupt), _listening(options.port) as listener:
        serve(listener, options)
    print("Stopped.", flush=True)


def serve(listener: socket, options: argparse.Namespace) -> None:
    directory = private.directory(options.data)
    url = f"http://{processes.LOOPBACK}:{options.port}"
    print("Starting ...", flush=True)
    with contextlib.ExitStack() as running:
        stack = running.enter_context(environment.storage(directory))
        environment.apply(directory)
        os.environ.setdefault("API_SERVER_URL", url)
        upstream = running.enter_context(upstreams.chosen(directory, with_llm=options.llm))
        print("Migrating and seeding ...", flush=True)
        demo = _prepared(directory, upstream)
        crew = running.enter_context(workers.running(listener, options.workers, stack))
        crew.wait_until_ready()
        _keep(directory, url, demo)
        print(ready.block(url, demo, upstream, data=options.data), flush=True)
        crew.watch()


def _prepared(directory: Path, upstream: upstreams.Upstream) -> Demo:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    # Its imports reach the models, which exist only now.
    from airi_server.launch import demo

    return demo.seed(
        kept=private.read(directory / "demo.json"), upstream=upstream, at=datetime.now(UTC)
    )


def _keep(directory: Path, url: str, demo: Demo) -> None:
    private.write(
        directory / "demo.json",
        {
            "base_url": url,
            **demo.as_dict(),
            "database_url": os.environ["DATABASE_URL"],
            "redis_url": os.environ["REDIS_URL"],
        },
    )


def _listening(port: int) -> socket:
    """Take the port before anything starts; whoever calls early waits in its queue."""
    try:
        listener = processes.bound(port)
        listener.listen(_BACKLOG)
    except OSError:
        sys.exit(f"Port {port} is taken; free it, or choose another with --port.")
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1 (default: 8000)")
    parser.add_argument("--workers", type=_count, default=1, help="server processes (default: 1)")
    parser.add_argument(
        "--data", type=Path, default=Path(".data"), help="where everything is kept (default: .data)"
    )
    parser.add_argument(
        "--llm", action="store_true", help="answer with a small language model on this machine"
    )
    return parser


def _count(text: str) -> int:
    if not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("must lie in 1..64")
    return int(text)
