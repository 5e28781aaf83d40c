"""What the console's lists of chats, messages and characters have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.utils.html import format_html

from accounts import users
from accounts.credentials import without_secret
from airi_server.pages.columns import link_to
from airi_server.pages.exports import ExportPages
from airi_server.pages.filters import Selection


class ConsolePages(ExportPages):
    """A list of rows that each belong to one user, by an id that is no foreign key."""

    export_permission = "chats.export_chats"
    person_column: ClassVar[str]

    def named_person(self, row: Any) -> str:
        """Show whose the row is: the address of today, over the id that never changes."""
        user_id = getattr(row, self.person_column)
        return format_html(
            '<a href="{}">{}</a><br><code>{}</code>',
            link_to("accounts_user_change", user_id),
            row.email or "no such user any more",
            user_id,
        )

    def complete(self, rows: Sequence[Any]) -> None:
        """Look up the addresses of a page at once."""
        ids = [getattr(row, self.person_column) for row in rows]
        emails = users.emails_of(ids) if ids else {}
        for row, user_id in zip(rows, ids, strict=True):
            row.email = emails.get(user_id, "")

    def search(self, selection: Selection, term: str) -> None:
        """Find an address or an id through its index, and the rest as each list does it."""
        term = without_secret(term)
        if "@" in term and (found := users.with_email(term)):
            choose(selection, found.pk)
        elif term:
            self.search_for(selection, term)

    def search_for(self, selection: Selection, term: str) -> None:
        raise NotImplementedError

    def spoken(self, value: str) -> str:
        return without_secret(super().spoken(value))


def choose(selection: Selection, user_id: str) -> None:
    """Narrow a selection to one user; two at once have no rows."""
    if selection.user_id not in (None, user_id):
        selection.is_hopeless = True
    selection.user_id = user_id
