"""Audit of refused pages: staff without the permission, and forms whose session is over.

The first leave one row in the audit log, and no more than that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from airi_server.runtime import audit
from airi_server.runtime.audit import Actor, AuditEntry, Subject
from airi_server.web import error_responses

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]
ACTION: Final = "refused"
QUIET: Final = timedelta(minutes=1)
"""One row at most in this time for the same operator and path."""
MOST: Final = 20
"""Rows at most in that time for one operator, whatever the paths."""
MAX_PATH: Final = 300


def recorded(view: View) -> View:
    """Wrap a page so that its refusals are written down, outside the transaction that failed."""

    @wraps(view)
    def watched(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        try:
            answer = view(request, *args, **named)
        except PermissionDenied:
            _record(request)
            raise
        if answer.status_code == 403:
            _record(request)
        return answer

    return watched


def not_redirected(page: View) -> View:
    """Wrap a page so that a form whose session is over is told so.

    Django would lead to the login, as it does who only looks: that drops what was entered, and says
    nothing.
    """

    @wraps(page)
    def answered(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        answer = page(request, *args, **named)
        if request.method != "POST" or request.user.is_authenticated:
            return answer
        is_led = getattr(answer, "url", "").startswith(reverse("admin:login"))
        return error_responses.session_over(request) if is_led else answer

    return answered


def _record(request: HttpRequest) -> None:
    """Write one row about a refusal. That it cannot be written changes nothing about it."""
    by, at = Actor.of(request.user), timezone.now()
    # The path, not the query: what was searched for or filled in is nobody's business.
    path = request.path.replace("\x00", "")[:MAX_PATH]
    if not _is_due(by, path, at):
        return
    try:
        with transaction.atomic():
            audit.record(
                action=ACTION,
                subject=Subject("page", path),
                by=by,
                at=at,
                sentence=f"Was refused {request.method} {path}.",
            )
    except DatabaseError:
        logger.exception("Unable to record a refusal")


def _is_due(by: Actor, path: str, at: datetime) -> bool:
    """Return whether this operator has been refused few pages lately, and not this one."""
    newest = AuditEntry.objects.filter(actor_id=by.user_id).order_by("-id")[:MOST]
    lately = [row for row in newest if row.action == ACTION and row.at > at - QUIET]
    return len(lately) < MOST and path not in {row.subject_id for row in lately}
