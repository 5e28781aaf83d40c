"""`manage.py serve`: serve the application, as a deployment does."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from airi_server.web import serve, supervisor


class Command(BaseCommand):
    help = (
        "Serve HTTP and WebSockets until SIGTERM or Ctrl-C. Then readiness fails, after "
        "SHUTDOWN_DELAY_S nothing new is taken, and what is under way has SHUTDOWN_GRACE_S to "
        "finish; longer streams are ended and settled. A worker that ends is replaced, unless it "
        "ended right after its start: then all stop, and the exit status is 1. A single worker "
        "takes the place of this process."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", default="127.0.0.1",
            help="the address to listen at; 0.0.0.0 or :: is every one (default: 127.0.0.1)",
        )  # fmt: skip
        parser.add_argument("--port", type=_within(1, 65_535), default=8000, help="default: 8000")
        parser.add_argument(
            "--workers", type=_within(1, 64), default=1,
            help="processes that serve; each has connections to PostgreSQL of its own, up to "
            "DB_POOL_MAX and HOT_POOL_MAX (default: 1)",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        host, port, workers = options["host"], options["port"], options["workers"]
        connections.close_all()
        try:
            listener = supervisor.listening(host, port)
        except supervisor.CannotListen as refused:
            raise CommandError(f"{refused} Free it, or choose another.") from None
        self.stderr.write(f"Listening at {host} port {port}, workers: {workers}")
        if workers == 1:
            supervisor.become_worker(listener)
        patience_s = settings.SHUTDOWN_DELAY_S + settings.SHUTDOWN_GRACE_S + 2 * serve.MARGIN_S
        try:
            supervisor.Supervisor(listener, workers, patience_s=patience_s).run()
        except supervisor.WorkerFailed as failed:
            raise CommandError(str(failed)) from None


def _within(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return whole
