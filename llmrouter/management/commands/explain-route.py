"""`manage.py explain-route MODEL`: what a request for MODEL would try now, and why."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from airi_server.kernel.errors import DomainError
from llmrouter.configuration import publishing, routes
from llmrouter.routing import health, planning

COLUMNS = "#\tupstream\tmodel\tkey\twhy"


class Command(BaseCommand):
    help = (
        "Print the plan of a request for MODEL: a tab-separated line for each upstream and key, "
        "numbered in the order they are tried, `-` for those that rest. Exits with 1 if none is "
        "left. Upstreams of one priority are drawn by weight for each request; here they stand "
        "as configured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="the name clients send")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now().timestamp()
        resting = health.resting_from_redis()
        untils = {health_id: until for health_id, (until, _) in resting.items()}
        try:
            table = publishing.current_table()
            plan = planning.plan(table, options["model"], untils, now, lambda: 0.0)
        except DomainError as refusal:
            details = refusal.details or {}
            known = ", ".join(details.get("available", []))
            raise CommandError(f"{refusal.message} (available: {known or 'none'})") from None
        self.stdout.write(COLUMNS)
        route = table.llm[options["model"]]
        for attempt in plan.attempts:
            why = _rank(route, attempt.upstream)
            self._line(str(attempt.position), attempt.upstream, attempt.key, why)
        for skipped in plan.skipped:
            _, reason = resting[skipped.key.health_id]
            self._line("-", skipped.upstream, skipped.key, f"{reason}: {skipped.why(now)}")
        if not plan.attempts:
            raise CommandError("Nothing is left to try: every key rests or is disabled.")

    def _line(self, mark: str, upstream: routes.Upstream, key: routes.Key, why: str) -> None:
        self.stdout.write("\t".join((mark, upstream.id, upstream.model, key.id, why)))


def _rank(route: routes.Route, upstream: routes.Upstream) -> str:
    equals = [each for each in route.upstreams if each.priority == upstream.priority]
    if len(equals) == 1:
        return f"priority {upstream.priority}"
    total = sum(each.weight for each in equals)
    return f"priority {upstream.priority}, drawn by weight {upstream.weight} of {total}"
