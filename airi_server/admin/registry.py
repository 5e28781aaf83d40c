"""The audit log and the groups of permissions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group
from django.db.models import Q
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join

import accounts.admin.lookup
from accounts.credentials import without_secret
from airi_server.pages.filters import KeysetAdmin, Selection, TextFilter, TimeFilter
from airi_server.pages.operators import OperatorAdmin
from airi_server.pages.paging import KeysetQuery
from airi_server.runtime import audit
from airi_server.runtime.audit import AuditEntry

RECENT: Final = 10_000
"""Entries whose actions are on offer."""


class ActorFilter(TextFilter):
    """Who, by today's address or by the one of then; a known user through the index."""

    title, names, column = "Who (e-mail address)", ("who",), "actor"

    def select(self, selection: Selection) -> None:
        if not self.value():
            return
        user_id = accounts.admin.lookup.user_at(self.value())
        if user_id:
            selection.indexed &= Q(actor_id=user_id)
        else:
            selection.filtered &= Q(actor=self.value())


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


@admin.register(AuditEntry)
class AuditEntryAdmin(KeysetAdmin):
    list_display = ("when", "actor", "action", "sentence", "about")
    list_display_links = ("when",)
    list_filter = (TimeFilter, ActorFilter, ActionFilter)
    search_fields = ("id",)
    search_help_text = "What it was done to, who did it, or a request id: whole"
    empty_title = "Nobody has done anything yet"
    empty_help = "Whatever operators change is written down here, with who and why."
    fields = ("when", "by", "action", "about", "sentence", "known", "request_id")
    readonly_fields = fields

    def search(self, selection: Selection, term: str) -> None:
        """Find what was done to something, by somebody, or in one request."""
        term = without_secret(term)
        if not term:
            return
        key = (accounts.admin.lookup.user_at(term) if "@" in term else term) or term
        selection.filtered &= Q(subject_id=key) | Q(actor_id=key) | Q(request_id=key)

    def line(self, selection: Selection) -> KeysetQuery:
        filtered = selection.filtered
        if selection.begin:
            filtered &= Q(at__gte=selection.begin)
        if selection.end:
            filtered &= Q(at__lt=selection.end)
        return KeysetQuery(AuditEntry.objects.filter(selection.indexed), "id", filtered=filtered)

    @admin.display(description="When")
    def when(self, entry: AuditEntry) -> str:
        return f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"

    @admin.display(description="To what")
    def about(self, entry: AuditEntry) -> str:
        """Name the subject, and lead to its page if it has one."""
        name = f"{entry.subject_kind} {entry.subject_id}".strip()
        url = _page_of(entry)
        return format_html('<a class="underline" href="{}">{}</a>', url, name) if url else name

    @admin.display(description="By")
    def by(self, entry: AuditEntry) -> str:
        if not entry.actor_id:
            return f"{entry.actor} (a command on the server)"
        url = reverse("admin:accounts_user_change", args=[quote(entry.actor_id)])
        return format_html('<a class="underline" href="{}">{}</a>', url, entry.actor)

    @admin.display(description="Facts")
    def known(self, entry: AuditEntry) -> str:
        if not entry.facts:
            return "none"
        lines = format_html_join("", "<dt>{}</dt><dd>{}</dd>", sorted(entry.facts.items()))
        return format_html('<dl class="console-facts">{}</dl>', lines)


admin.site.unregister(Group)


@admin.register(Group)
class RoleAdmin(OperatorAdmin, GroupAdmin):
    """Permissions by role. Whoever edits these can give themselves anything: for superusers."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    has_add_permission = has_view_permission
    has_change_permission = has_view_permission
    has_delete_permission = has_view_permission


def _page_of(entry: audit.AuditEntry) -> str:
    """Return the address of the page about what an entry is about, or nothing."""
    if entry.subject_kind == "runtime.option":
        return reverse("admin:setting", args=[entry.subject_id])
    page = entry.subject_kind.replace(".", "_")
    try:
        return reverse(f"admin:{page}_change", args=[quote(entry.subject_id)])
    except NoReverseMatch:
        return ""
