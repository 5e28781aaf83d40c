"""What the lists of the books have in common: whose a row is, and how it is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.utils.html import format_html

from accounts import keys, users
from accounts.credentials import without_secret
from airi_server.pages.columns import action, display, link_to, number
from airi_server.pages.exports import ExportPages
from airi_server.pages.filters import Selection

__all__ = ["BookPages", "action", "as_uuid", "choose", "display", "link_to", "number"]


class BookPages(ExportPages):
    """A list of rows that belong to users, by an id that is no foreign key."""

    export_permission: ClassVar[str] = "billing.export_books"

    @admin.display(description="User")
    def person(self, row: Any) -> str:
        """Show whose the row is: the address of today, over the id that never changes."""
        return format_html(
            '<a href="{}">{}</a><br><code>{}</code>',
            link_to("accounts_user_change", row.user_id),
            row.email or "no such user any more",
            row.user_id,
        )

    def complete(self, rows: Sequence[Any]) -> None:
        """Look up the addresses of a page at once."""
        emails = users.emails_of([row.user_id for row in rows]) if rows else {}
        for row in rows:
            row.email = emails.get(row.user_id, "")

    def search(self, selection: Selection, term: str) -> None:
        """Find whole things only, each kind through its own index."""
        term = without_secret(term)
        if not term:
            return
        request_id = as_uuid(term.removeprefix("llm:"))
        public_id = keys.public_id_in(term)
        if "@" in term:
            found = users.with_email(term)
            choose(selection, found.pk if found else None)
        elif request_id is not None:
            self.search_request(selection, request_id)
        elif public_id is not None:
            self.search_api_key(selection, public_id)
        elif self.is_user(term):
            choose(selection, term)
        else:
            self.search_key(selection, term)

    def is_user(self, term: str) -> bool:
        """Whether somebody is called that, or has rows here, or had."""
        return bool(users.emails_of([term])) or (self.model.objects.filter(user_id=term).exists())

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        selection.is_hopeless = True

    def search_api_key(self, selection: Selection, public_id: str) -> None:
        choose(selection, keys.owner_of(public_id))

    def search_key(self, selection: Selection, term: str) -> None:
        selection.is_hopeless = True

    def spoken(self, value: str) -> str:
        return without_secret(super().spoken(value))


def choose(selection: Selection, user_id: str | None) -> None:
    """Narrow a selection to one user; nobody, or two at once, have no rows."""
    if user_id is None or selection.user_id not in (None, user_id):
        selection.is_hopeless = True
    else:
        selection.user_id = user_id


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
