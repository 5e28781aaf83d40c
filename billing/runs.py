"""When somebody last asked whether the books agree, and what the answer was.

A row for each run of `billing.reconciliation`, by command or from the console. Append-only.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import CheckConstraint, Q

from billing.reconciliation import EVERYTHING, Scope


class ReconciliationRun(models.Model):
    """One check of the books. `scope` is empty if it looked at everything."""

    at = models.DateTimeField()
    by = models.CharField(max_length=254)
    scope = models.CharField(max_length=200, blank=True)
    duration_ms = models.IntegerField()
    broken = models.IntegerField(help_text="Rows that break an invariant.")
    orphans = models.IntegerField(help_text="Open requests nobody will end.")

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
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}: {self.broken} broken, {self.orphans} orphans"

    @property
    def agrees(self) -> bool:
        return not self.broken


def record(
    *, scope: Scope, by: str, at: datetime, duration_ms: int, broken: int, orphans: int
) -> ReconciliationRun:
    """Write down one finished check."""
    return ReconciliationRun.objects.create(
        at=at,
        by=by,
        scope=_named(scope),
        duration_ms=duration_ms,
        broken=broken,
        orphans=orphans,
    )


def newest() -> ReconciliationRun | None:
    """Return the newest check that looked at everything."""
    return ReconciliationRun.objects.filter(scope="").order_by("-id").first()


def before_now(*, limit: int = 20) -> list[ReconciliationRun]:
    """Return the newest checks of whatever scope, newest first."""
    return list(ReconciliationRun.objects.order_by("-id")[:limit])


def _named(scope: Scope) -> str:
    """Say what a check looked at, in the words of the command's arguments."""
    if scope == EVERYTHING:
        return ""
    user = f"--user {scope.user_id}" if scope.user_id else ""
    since = f"--since {scope.since.isoformat()}" if scope.since else ""
    return f"{user} {since}".strip()[:200]
