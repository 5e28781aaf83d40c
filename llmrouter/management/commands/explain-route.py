"""`manage.py explain-route MODEL`: what a request for MODEL would try now, and why."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from airi_server.kernel.errors import DomainError
from llmrouter.configuration import publishing, tree
from llmrouter.routing import explanation, health

COLUMNS = "#\tupstream\tmodel\tkey\twhy"


class Command(BaseCommand):
    help = (
        "Print the plan of a request for MODEL: a tab-separated line for each upstream and key, "
        "numbered in the order they are tried, `-` for those that rest or are disabled. Exits "
        "with 1 if none is left. Upstreams of one priority are drawn by weight for each request; "
        "here they stand as configured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="the name clients send")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            explained = _explained(options["model"])
        except DomainError as refusal:
            details = refusal.details or {}
            known = ", ".join(details.get("available", []))
            raise CommandError(f"{refusal.message} (available: {known or 'none'})") from None
        self.stdout.write(COLUMNS)
        for line in (*explained.attempts, *explained.skipped):
            mark = str(line.position or "-")
            self.stdout.write("\t".join((mark, line.upstream, line.model, line.key, line.why)))
        if not explained.attempts:
            raise CommandError("Nothing is left to try: every key rests or is disabled.")


def _explained(model: str) -> explanation.Explanation:
    revision = publishing.newest()
    if revision is None:
        raise publishing.NotConfigured("LLM_ROUTER_CONFIG not set")
    return explanation.explain(
        tree.parse(revision.tree),
        revision.number,
        model,
        health.resting_from_redis(),
        timezone.now().timestamp(),
    )
