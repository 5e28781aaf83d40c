"""What the audit log can be filtered by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.db.models import Q

import accounts.lookup
from airi_server.pages.filters import Selection, TextFilter
from airi_server.runtime.audit import AuditEntry

RECENT: Final = 10_000
"""Entries whose actions are on offer."""


class ActorFilter(TextFilter):
    """Who, by today's address or by the one of then; a known user through the index."""

    title, names, column = "Who (e-mail address)", ("who",), "actor"

    def select(self, selection: Selection) -> None:
        if not self.value():
            return
        user_id = accounts.lookup.user_at(self.value())
        if user_id:
            selection.led &= Q(actor_id=user_id)
        else:
            selection.narrowed &= Q(actor=self.value())


class ActionFilter(TextFilter):
    """One of the actions that were taken lately: each is the permission that allowed it."""

    title, names, column = "Action", ("action",), "action"

    def inputs(self) -> Iterator[dict[str, Any]]:
        recent = AuditEntry.objects.order_by("-id").values_list("action", flat=True)[:RECENT]
        found = sorted({*recent, *filter(None, [self.value()])})
        yield {
            "name": self.names[0],
            "label": self.title,
            "value": self.value(),
            "choices": [("", "All"), *((action, action) for action in found)],
        }
