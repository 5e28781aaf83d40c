"""Reconciliation runs: when the books were checked, and what was found.

A row for each run of `billing.reconciliation`, by command or from the console. Append-only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import CheckConstraint, Q

from billing.reconciliation import EVERYTHING, CheckScope


class ReconciliationRun(models.Model):
    """One check of the books. `scope` is empty if it looked at everything."""

    at = models.DateTimeField()
    by = models.CharField(max_length=254)
    scope = models.CharField(max_length=200, blank=True)
    duration_ms = models.IntegerField()
    broken = models.IntegerField(help_text="Rows that break an invariant.")
    orphans = models.IntegerField(help_text="Open requests nobody will end.")
    findings = models.JSONField(
        null=True, help_text="The first of both. NULL: a command said them."
    )

    class Meta:
        db_table = "reconciliation_run"
        verbose_name = "check of the books"
        verbose_name_plural = "checks of the books"
        default_permissions = ()
        permissions = [("reconcile_books", "Can check the books")]
        constraints = [
            CheckConstraint(
                name="reconciliation_run_counts_not_negative",
                condition=Q(duration_ms__gte=0, broken__gte=0, orphans__gte=0),
            ),
            CheckConstraint(name="reconciliation_run_has_an_author", condition=~Q(by="")),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}: {self.broken} broken, {self.orphans} orphans"

    @property
    def agrees(self) -> bool:
        return not self.broken


def record(  # noqa: PLR0913  a check has this many facts
    *,
    scope: CheckScope,
    by: str,
    at: datetime,
    duration_ms: int,
    broken: int,
    orphans: int,
    findings: dict[str, Any] | None = None,
) -> ReconciliationRun:
    """Write down one finished check, and the first of what it found if there is a page for it."""
    return ReconciliationRun.objects.create(
        at=at,
        by=by,
        scope=_named(scope),
        duration_ms=duration_ms,
        broken=broken,
        orphans=orphans,
        findings=findings,
    )


def newest() -> ReconciliationRun | None:
    """Return the newest check that looked at everything."""
    return ReconciliationRun.objects.filter(scope="").order_by("-id").first()


def numbered(number: int) -> ReconciliationRun | None:
    """Return one check."""
    return ReconciliationRun.objects.filter(pk=number).first()


def before_now(*, limit: int = 20) -> list[ReconciliationRun]:
    """Return the newest checks of whatever scope, newest first."""
    return list(ReconciliationRun.objects.order_by("-id")[:limit])


def _named(scope: CheckScope) -> str:
    """Say what a check looked at, in the words of the command's arguments."""
    if scope == EVERYTHING:
        return ""
    user = f"--user {scope.user_id}" if scope.user_id else ""
    since = f"--since {scope.since.isoformat()}" if scope.since else ""
    return f"{user} {since}".strip()[:200]
