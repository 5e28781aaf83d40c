"""Reconciliation pages: check the books now, in the request, and read what earlier checks found."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any, Final, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.runtime import audit
from billing import reconciliation, reconciliation_runs
from billing.reconciliation import EVERYTHING

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


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """List earlier checks; a POST checks now and leads to the page of what it found."""
    _check_may_see(request)
    if request.method != "POST":
        return _shown(request, context, None)
    if not request.user.has_perm(CHECK):
        raise PermissionDenied
    try:
        run = _check(audit.Actor.of(request.user))
    except OperationalError:
        logger.exception("A check of the books was stopped")
        messages.error(request, TOO_LONG)
        return redirect("admin:reconciliation")
    return redirect("admin:reconciliation_run", run.pk)


def run_page(request: HttpRequest, context: dict[str, Any], *, run: int) -> HttpResponse:
    """Show what one check found, whenever it was."""
    _check_may_see(request)
    found = reconciliation_runs.numbered(run)
    if found is None:
        raise Http404
    return _shown(request, context, found)


def _check_may_see(request: HttpRequest) -> None:
    if not request.user.has_perm(SEE):
        raise PermissionDenied


def _shown(
    request: HttpRequest, context: dict[str, Any], run: reconciliation_runs.ReconciliationRun | None
) -> HttpResponse:
    shown = {
        **context,
        "title": "Check the books",
        "run": run,
        "findings": run.findings if run else None,
        "runs": reconciliation_runs.before_now(),
        "may_check": request.user.has_perm(CHECK),
    }
    return TemplateResponse(request, "console/reconciliation.html", shown)


def _check(by: audit.Actor) -> reconciliation_runs.ReconciliationRun:
    """Read one snapshot of everything, then write down what it showed."""
    at, began = timezone.now(), time.monotonic()
    with reconciliation.snapshot():
        broken, broken_count = _first(reconciliation.broken_rows(EVERYTHING, limit_s=LIMIT_S))
        orphans, orphan_count = _first(reconciliation.orphans(EVERYTHING))
    duration_ms = round((time.monotonic() - began) * 1000)
    findings = {
        "broken": [asdict(each) for each in broken],
        "orphans": [{**asdict(each), "id": str(each.id)} for each in orphans],
    }
    with transaction.atomic():
        run = reconciliation_runs.record(
            scope=EVERYTHING, by=by, at=at, duration_ms=duration_ms,
            broken=broken_count, orphans=orphan_count, findings=findings,
        )  # fmt: skip
        audit.record(
            action=CHECK,
            subject=audit.Subject.of(run),
            by=by,
            at=at,
            sentence=f"Checked the books: {broken_count} broken, {orphan_count} orphans.",
        )
    return run


def _first(rows: Iterator[T]) -> tuple[list[T], int]:
    """Return the first rows and how many there are altogether."""
    listed = list(islice(rows, SHOWN))
    return listed, len(listed) + sum(1 for _ in rows)
