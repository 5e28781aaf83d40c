"""Audit log: who did what to whom and why, one row in the transaction that does it.

A caller that rolls back leaves no row, and a row that cannot be written undoes what it is about.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple, Self

from django.db import transaction
from django.db.models import Model

from airi_server.kernel import context
from airi_server.runtime.models import AuditEntry

__all__ = ["COMMAND", "Actor", "AuditEntry", "Subject", "of", "record"]

MAX_SENTENCE: Final = 1000


class Actor(str):
    """An operator: reads as the e-mail address of the moment, and carries the user's id.

    A string, because that is what every `by` of a domain function is. A plain one has no id.
    """

    __slots__ = ("user_id",)
    user_id: str

    def __new__(cls, name: str, *, user_id: str) -> Self:
        actor = super().__new__(cls, name)
        actor.user_id = user_id
        return actor

    @classmethod
    def of(cls, user: Any) -> Self:
        """Return the actor that a Django user is."""
        return cls(user.get_username(), user_id=str(user.pk))


COMMAND: Final = Actor("manage.py", user_id="")


class Subject(NamedTuple):
    """What something was done to: a model's label, as in `accounts.user`, and its key."""

    kind: str
    id: str

    @classmethod
    def of(cls, row: Model) -> Subject:
        return cls(row._meta.label_lower, str(row.pk))  # noqa: SLF001  public in all but name


def record(
    *,
    action: str,
    subject: Subject,
    by: str,
    at: datetime,
    sentence: str,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write down one thing done, in the caller's transaction.

    Args:
        action: The permission that allowed it: `billing.grant_flux`.
        subject: What it was done to.
        by: An `Actor`, or the name of whoever has no account here.
        at: When.
        sentence: What happened and why, for people. Never a secret.
        facts: The same for programs. Never a secret.

    Raises:
        TransactionManagementError: The caller has no transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("what is audited needs a transaction")
    AuditEntry.objects.create(
        at=at,
        actor_id=getattr(by, "user_id", ""),
        actor=by,
        action=action,
        subject_kind=subject.kind,
        subject_id=subject.id,
        sentence=sentence[:MAX_SENTENCE],
        facts=facts or {},
        request_id=context.request_id.get(),
    )


def of(subject: Subject, *, limit: int = 100) -> list[AuditEntry]:
    """Return what was done to a subject, newest first."""
    rows = AuditEntry.objects.filter(subject_kind=subject.kind, subject_id=subject.id)
    return list(rows.order_by("-id")[:limit])
