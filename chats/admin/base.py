"""What the console's lists of chats, messages and characters have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from django import forms
from django.db.models import Q
from django.utils.html import format_html

from accounts import users
from accounts.credentials import without_secret
from airi_server.pages.columns import link_to
from airi_server.pages.exports import ExportPages
from airi_server.pages.filters import ChoiceFilter, Selection, TextFilter
from chats.models import Chat, ChatMessage


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
        selection.is_empty = True
    selection.user_id = user_id


MAX_REASON: Final = 500
MAX_READ: Final = 50
"""Messages that are read at once: enough to understand, too few to browse."""
MAX_SEQ: Final = 2**63 - 1


class ChatReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=MAX_REASON, help_text="For the audit log; nobody in the chat sees it."
    )


class ReadForm(ChatReasonForm):
    """Which messages, and why."""

    first = forms.IntegerField(min_value=1, max_value=MAX_SEQ, label="From number")
    last = forms.IntegerField(
        min_value=1,
        max_value=MAX_SEQ,
        label="To number",
        help_text=f"At most {MAX_READ} numbers at once.",
    )
    field_order = ("first", "last", "reason")

    @classmethod
    def of(cls, chat: Chat, seq: str) -> ReadForm:
        """Return a form for one message, or for the newest ones."""
        if seq.isascii() and seq.isdigit() and len(seq) < 19:
            return cls(initial={"first": int(seq), "last": int(seq)})
        first = max(1, chat.last_seq - MAX_READ + 1)
        return cls(initial={"first": first, "last": max(1, chat.last_seq)})

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        first, last = found.get("first"), found.get("last")
        if first is not None and last is not None:
            if last < first:
                self.add_error("last", "This lies before the first number.")
            elif last - first >= MAX_READ:
                self.add_error("last", f"Read at most {MAX_READ} numbers at once.")
        return found


LIVE_OR_DELETED = (("live", "Live"), ("deleted", "Deleted"))


class TypeFilter(ChoiceFilter):
    title, names = "Type", ("type",)
    options = Chat.Type.choices

    def choose(self, selection: Selection, value: str) -> None:
        selection.filtered &= Q(type=value)


class ChatStateFilter(ChoiceFilter):
    title, names = "State", ("state",)
    options = LIVE_OR_DELETED

    def choose(self, selection: Selection, value: str) -> None:
        selection.filtered &= Q(deleted_at__isnull=value == "live")


class RoleFilter(ChoiceFilter):
    title, names = "Role", ("role",)
    options = ChatMessage.Role.choices

    def choose(self, selection: Selection, value: str) -> None:
        selection.filtered &= Q(role=value)


class ChatFilter(TextFilter):
    """One chat's messages: their index begins with it."""

    title, names = "Chat id", ("chat",)

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.indexed &= Q(chat_id=self.value())


class AuthorFilter(TextFilter):
    title, names, column = "Author's user id", ("user",), "author_id"


class OwnerFilter(TextFilter):
    """One user's characters: an index begins with the owner."""

    title, names = "Owner's user id", ("user",)

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.user_id = self.value()
