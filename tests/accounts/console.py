"""What tests of the console do again and again."""

from __future__ import annotations

from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.urls import reverse

from airi_server.runtime import audit


def url(model: str, page: str, *args) -> str:
    return reverse(f"admin:accounts_{model}_{page}", args=[quote(arg) for arg in args])


def allow(user, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))


def audited(row) -> list[tuple[str, str]]:
    """Return what was done to a row and the permission it took, oldest first."""
    return [(entry.action, entry.sentence) for entry in audit.of(audit.Subject.of(row))][::-1]


def tick(client, model: str, action: str, *rows, **fields):
    """Tick rows of a list and confirm an action on them."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows], "_apply": ""}
    return client.post(url(model, "changelist"), {**chosen, **fields})
