"""`./run`: bring everything up, seed the demo, serve, and take everything down again."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final, NoReturn

from airi_server import boot
from airi_server.launch import (
    environment,
    locks,
    postgres,
    private,
    processes,
    ready,
    upstreams,
    workers,
)

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
    directory = private.directory(environment.data_directory(options.data))
    private.check_space(directory)
    url = f"http://{processes.LOOPBACK}:{options.port}"
    print("Starting ...", flush=True)
    with contextlib.ExitStack() as running:
        with locks.starting(directory):
            serving = running.enter_context(locks.Serving(directory))
            storage = running.enter_context(environment.storage(directory))
            environment.apply(directory)
            os.environ.setdefault("API_SERVER_URL", url)
            _migrate(storage, is_alone=serving.is_first)
            demo, upstream = _routed(directory, running, with_llm=options.llm)
            crew = running.enter_context(workers.running(listener, options.workers, storage))
            crew.wait_until_ready()
            if serving.is_first:
                _keep(directory, url, demo, storage)
        print(ready.block(url, demo, *upstream, data=directory), flush=True)
        if not serving.is_first:
            first = private.read(directory / environment.DEMO).get("base_url", "another address")
            _say(f"{directory} is served at {first} too, which demo.json goes on naming.")

        def look() -> None:
            if serving.becomes_first():
                _keep(directory, url, demo, storage)
                _say(f"the other one has ended: demo.json names {url} now.")

        crew.watch(look)


def _migrate(storage: environment.Storage, *, is_alone: bool) -> None:
    """Migrate as the owner of the database, let the other role serve, end what was left."""
    boot.set_up()
    boot.unpool()
    boot.check_servers()
    print("Migrating and seeding ...", flush=True)
    from django.core.management import call_command
    from django.db import connection

    # Their imports reach the models, which exist only now.
    from airi_server import roles
    from airi_server.management import schema_lock

    with boot.explained(), schema_lock.held(connection, say=_say):
        call_command("migrate", verbosity=0)
        if storage.has_roles:
            roles.grant(postgres.SERVING)
        _end_what_was_left(storage, is_alone=is_alone)


def _end_what_was_left(storage: environment.Storage, *, is_alone: bool) -> None:
    """End the requests of the last run's instances, as `reconcile-usage --settle` does."""
    from billing import reconciliation

    # Whoever outlived a PostgreSQL of ours would look for it at the port that it had.
    grace_s = 0 if storage.has_roles else None
    found = [each.charged for each in reconciliation.settle_orphans(grace_s=grace_s)]
    ended = [charged for charged in found if charged is not None]
    if ended:
        flux = sum(charged.charged for charged in ended)
        _say(f"ended {len(ended)} requests that the last run left open; {flux} Flux were charged.")
    for left in reconciliation.unjudged(grace_s=grace_s) if is_alone else ():
        _say(f"{left.requests} requests are open still ({left.why}); what is left of them in "
             f"{left.within_s} s, ./run manage reconcile-usage --settle ends.")  # fmt: skip


def _routed(
    directory: Path, running: contextlib.ExitStack, *, with_llm: bool
) -> tuple[Demo, tuple[str, str]]:
    """Start the upstreams that are ours, seed, and return the demo, its model and where it goes."""
    from django.db import connection

    from airi_server.kernel.errors import DomainError
    from airi_server.launch import demo

    at = datetime.now(UTC)
    chosen = upstreams.chosen(directory, with_llm=with_llm, routed=demo.routed())
    ours = running.enter_context(chosen)
    asked_for = ours.asked_for
    try:
        seeded = demo.seed(kept=private.read(directory / environment.DEMO), at=at)
        if asked_for and not demo.route(asked_for, at=at):
            _say("somebody has published routes since ./run made its own, so they stay. To go to "
                 f"{asked_for.base_url}, use the console or seed-router-config.")  # fmt: skip
    except DomainError as refusal:
        sys.exit(f"./run: {asked_for.description if asked_for else 'demo'}: {refusal.message}")
    target = demo.target()
    connection.close()  # from here on the servers are the workers' alone
    known = {**ours.running, **({asked_for.base_url: asked_for} if asked_for else {})}
    here = known.get(target.base_url)
    return seeded, (target.model, here.description if here else target.description)


def _keep(directory: Path, url: str, demo: Demo, storage: environment.Storage) -> None:
    private.write(
        directory / environment.DEMO,
        {
            "base_url": url,
            **demo.as_dict(),
            # The owner's, for whoever works with SQL.
            "database_url": os.environ["DATABASE_URL"],
            "serving_database_url": storage.serving_url,
            "redis_url": os.environ["REDIS_URL"],
        },
    )


def _say(sentence: str) -> None:
    print(f"./run: {sentence}", flush=True)


def _listening(port: int) -> socket:
    """Take the port before anything starts; whoever calls early waits in its queue."""
    try:
        listener = processes.bound(port)
        listener.listen(_BACKLOG)
    except PermissionError:
        sys.exit(f"./run: --port {port}: Permission denied. Choose one above 1023.")
    except OSError:
        sys.exit(f"./run: --port {port} is taken. Free it, or choose another with --port.")
    return listener


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"./run: {message}. ./run --help says what there is.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="./run", description=__doc__)
    parser.add_argument("--port", type=_port, default=8000, help="on 127.0.0.1 (default: 8000)")
    parser.add_argument("--workers", type=_count, default=1, help="server processes (default: 1)")
    parser.add_argument(
        "--data", type=Path, help="where everything is kept (default: .data beside ./run)"
    )
    parser.add_argument(
        "--llm", action="store_true", help="answer with a small language model on this machine"
    )
    return parser


def _port(text: str) -> int:
    return _whole(text, 1, 65_535)


def _count(text: str) -> int:
    return _whole(text, 1, 64)


def _whole(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
    return number
