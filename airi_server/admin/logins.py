"""Audit rows of logins: who, from where. Failed attempts leave none, because anybody can fail."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts import auth
from airi_server.runtime import audit


def record(request: HttpRequest, user: Any, **_named: Any) -> None:
    """Leave a row about a login. A program that logs somebody in has no address, and no row."""
    if "REMOTE_ADDR" not in request.META:
        return
    with transaction.atomic():
        audit.record(
            action="login",
            subject=audit.Subject.of(user),
            by=audit.Actor.of(user),
            at=timezone.now(),
            sentence=f"Logged in from {auth.address_of(request)}.",
        )


def listen() -> None:
    user_logged_in.connect(record, dispatch_uid="console.logins")
