"""Do the books agree? Checked now, in the request, and what earlier checks found."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.runtime import audit
from billing import reconciliation, runs
from billing.reconciliation import EVERYTHING, Broken, Orphan

logger = logging.getLogger(__name__)

T = TypeVar("T")
SEE: Final = "billing.view_fluxaccount"
CHECK: Final = "billing.reconcile_books"
LIMIT_S: Final = 50.0
"""What a check may take in a request. A million rows take about seven."""
SHOWN: Final = 200
"""Rows listed of each kind; all of them are counted."""
TOO_LONG: Final = (
    f"The check was stopped after {LIMIT_S:.0f} seconds, and found nothing out. "
    "Run manage.py reconcile-usage on the server: it has all the time it needs."
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What one check found; the lists are cut off, the counts are not."""

    broken: list[Broken]
    orphans: list[Orphan]
    run: runs.ReconciliationRun


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """List earlier checks; a POST checks now and shows what it finds."""
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    may_check = request.user.has_perm(CHECK)
    findings = None
    if request.method == "POST":
        if not may_check:
            raise PermissionDenied
        findings = _check_or_say(request)
    shown = {
        **context,
        "title": "Check the books",
        "findings": findings,
        "runs": runs.before_now(),
        "may_check": may_check,
        "shown": SHOWN,
    }
    return TemplateResponse(request, "console/reconciliation.html", shown)


def _check_or_say(request: HttpRequest) -> Findings | None:
    try:
        return _check(audit.Actor.of(request.user))
    except OperationalError:
        logger.exception("A check of the books was stopped")
        messages.error(request, TOO_LONG)
        return None


def _check(by: audit.Actor) -> Findings:
    """Read one snapshot of everything, then write down what it showed."""
    at, began = timezone.now(), time.monotonic()
    with reconciliation.snapshot():
        broken, broken_count = _first(reconciliation.broken_rows(EVERYTHING, limit_s=LIMIT_S))
        orphans, orphan_count = _first(reconciliation.orphans(EVERYTHING))
    duration_ms = round((time.monotonic() - began) * 1000)
    with transaction.atomic():
        run = runs.record(
            scope=EVERYTHING, by=by, at=at, duration_ms=duration_ms,
            broken=broken_count, orphans=orphan_count,
        )  # fmt: skip
        audit.record(
            action=CHECK,
            subject=audit.Subject.of(run),
            by=by,
            at=at,
            sentence=f"Checked the books: {broken_count} broken, {orphan_count} orphans.",
        )
    return Findings(broken, orphans, run)


def _first(rows: Iterator[T]) -> tuple[list[T], int]:
    """Return the first rows and how many there are altogether."""
    listed = list(islice(rows, SHOWN))
    return listed, len(listed) + sum(1 for _ in rows)
