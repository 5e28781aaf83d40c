"""`manage.py explain-route MODEL`: what a request for MODEL would try now, and why."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from airi_server.kernel.errors import DomainError
from airi_server.runtime.options import ConfigNotSet
from llmrouter.configuration import publishing, tree
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from llmrouter.routing import explanation, health
from llmrouter.routing.explanation import UnknownModel

AUTO = "auto"
COLUMNS = "#\tupstream\tmodel\tkey\twhy"


class Command(BaseCommand):
    help = (
        "Print the plan of a request for MODEL: a tab-separated line for each upstream and key, "
        "numbered in the order they are tried, `-` for those that are disabled. `auto` is the "
        "default model. Exits with 1 if none is left. Upstreams of one priority are drawn by "
        "weight for each request; here they stand as configured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="the name clients send, as chat-default or auto")

    def handle(self, *args: Any, **options: Any) -> None:
        asked = options["model"]
        model = _default() if asked == AUTO else asked
        try:
            explained = _explained(model)
        except UnknownModel as unknown:
            known = ", ".join((unknown.details or {}).get("available", []))
            where = f"{AUTO} is {model!r} (DEFAULT_CHAT_MODEL): " if asked == AUTO else ""
            raise CommandError(
                f"{where}There is no model {model!r}. There are: {known or 'none'}."
            ) from None
        except DomainError as refusal:
            raise CommandError(refusal.message) from None
        if asked == AUTO:
            self.stderr.write(f"{AUTO} is {model}")
        self.stdout.write(COLUMNS)
        for line in (*explained.attempts, *explained.skipped):
            mark = str(line.position or "-")
            self.stdout.write("\t".join((mark, line.upstream, line.model, line.key, line.why)))
        if not explained.attempts:
            raise CommandError("Nothing is left to try: every key is disabled.")


def _default() -> str:
    """Return what `auto` means in a chat request."""
    try:
        model: str = DEFAULT_CHAT_MODEL.read()
    except ConfigNotSet:
        raise CommandError(
            f"{AUTO} means no model yet: DEFAULT_CHAT_MODEL is not set. Set it in the console "
            "under Settings, or with seed-router-config."
        ) from None
    return model


def _explained(model: str) -> explanation.RouteExplanation:
    revision = publishing.newest()
    if revision is None:
        raise CommandError("No routes have been published yet: use seed-router-config.")
    return explanation.explain(
        tree.parse(revision.tree),
        revision.number,
        model,
        health.standings_from_redis(revision.number),
    )
