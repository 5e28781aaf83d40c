"""`manage.py clear-expired`: delete the rows that are kept for a while and have been."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.utils import timezone

from airi_server.kernel import expiry
from airi_server.runtime import used_forms
from billing import reconciliation
from billing.usage import refusals


def _sessions(*, at: datetime) -> int:
    return expiry.clear(table="django_session", column="expire_date", before=at)


def _results(*, at: datetime) -> int:
    """Delete by the database's clock, which is what a replay looks at."""
    return reconciliation.prune_results()


TABLES: Final[Mapping[str, Callable[..., int]]] = {
    "django_session": _sessions,
    "llm_request_result": _results,
    "refusal_hour": refusals.clear_expired_counts,
    "refused_request": refusals.clear_expired,
    "used_form": used_forms.clear_expired,
}
"""By the name of the table."""


class Command(BaseCommand):
    help = (
        "Delete sessions of the console that have expired, used forms and answers kept for a retry "
        "after a day, refused requests after a week and their counts after 25 months. Deletes "
        "a thousand rows at a time, leaves rows that are locked for the next run, and may run "
        "while everything serves. Output: a line for each table, with how many rows went. Run it "
        "every day."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        at = timezone.now()
        for table, clear in TABLES.items():
            self.stdout.write(f"{table}\t{clear(at=at)}")
