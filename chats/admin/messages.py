"""Messages of one chat: who pushed what kind when and how long it is; never what it says."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import Func, IntegerField, Q, QuerySet
from django.http import HttpRequest

from airi_server.pages.columns import display, instant, link_to, number
from airi_server.pages.filters import Selection, TimeFilter
from airi_server.pages.paging import SCATTERED, KeysetQuery
from chats.admin import lookup
from chats.admin.base import AuthorFilter, ChatFilter, ChatStateFilter, ConsolePages, RoleFilter
from chats.admin.chats import READ
from chats.models import ChatMessage

SIZE: Final = Func("content", function="octet_length", output_field=IntegerField())
"""Bytes of a text, which PostgreSQL knows without reading it."""


def unread() -> QuerySet[Any]:
    """Return messages without what they say, and with how long that is."""
    return ChatMessage.objects.defer("content", "superseded").annotate(size=SIZE)


class MessagePages(ConsolePages):
    list_display = ("number", "sent", "changed", "role_", "person", "bytes", "state")
    list_display_links = ("number", "sent")
    list_filter = (ChatFilter, TimeFilter, RoleFilter, ChatStateFilter, AuthorFilter)
    search_fields = ("id",)
    search_help_text = "A whole message id, a chat id, or an author's user id or e-mail address"
    empty_title = "No messages here"
    empty_help = "Messages are listed for one chat: choose it by its id, or come from its page."
    change_form_template = "console/chat_message.html"
    person_column = "author_id"
    fields = ("id", "chat", "seq", "role", "author_id", "created_at", "updated_at", "deleted_at")
    export_columns = (
        "chat_id", "seq", "id", "role", "author_id", "email", "size", "created_at", "updated_at",
        "deleted_at",
    )  # fmt: skip

    @admin.display(description="Number")
    def number(self, row: ChatMessage) -> str:
        return number(row.seq)

    @admin.display(description="Sent (UTC)")
    def sent(self, row: ChatMessage) -> str:
        return instant(row.created_at)

    @admin.display(description="Changed (UTC)")
    def changed(self, row: ChatMessage) -> str:
        return instant(row.updated_at) if row.updated_at != row.created_at else ""

    @admin.display(description="Role")
    def role_(self, row: ChatMessage) -> str:
        return row.get_role_display()

    @admin.display(description="Pushed by")
    def person(self, row: ChatMessage) -> str:
        return self.named_person(row)

    @admin.display(description="Bytes")
    def bytes(self, row: Any) -> str:
        return number(row.size)

    @display(description="State", label={"live": "success", "tombstone": "warning"})
    def state(self, row: ChatMessage) -> str:
        return "live" if row.deleted_at is None else "tombstone"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return unread()

    def search_for(self, selection: Selection, term: str) -> None:
        if lookup.is_message(term):
            selection.indexed &= Q(pk=term)
        elif lookup.is_chat(term):
            selection.indexed &= Q(chat_id=term)
        else:
            selection.user_id = term

    def line(self, selection: Selection) -> KeysetQuery:
        """Return one chat's messages by number; nobody's are in any other order."""
        filtered = selection.filtered
        if selection.begin is not None:
            filtered &= Q(created_at__gte=selection.begin)
        if selection.end is not None:
            filtered &= Q(created_at__lt=selection.end)
        if selection.user_id is not None:
            filtered &= Q(author_id=selection.user_id)
        rows = unread().filter(selection.indexed)
        # Without a chat or a message's id, no index leads anywhere.
        selection.is_empty |= selection.indexed == Q()
        return KeysetQuery(rows, "seq", filtered=filtered, slice=SCATTERED)

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        self.complete([row])
        chat_url = link_to("chats_chat_change", row.chat_id)
        may_read = request.user.has_perm(READ) and row.deleted_at is None
        return {
            "message": row,
            "title": str(row),
            "subtitle": None,
            "chat_url": chat_url,
            "author_url": link_to("accounts_user_change", row.author_id),
            "read_url": f"{link_to('chats_chat_read', row.chat_id)}?seq={row.seq}"
            if may_read
            else "",
        }
