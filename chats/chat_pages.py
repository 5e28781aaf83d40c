"""Chats: the list that finds one, and the page that says who is in it and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest

from accounts import users
from airi_server.pages.columns import display, instant, link_to, number
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.paging import DatedLine, Line, Page
from airi_server.runtime import audit
from chats import lookup
from chats.chat_actions import MAX_COUNTED, ChatActions
from chats.console_pages import ConsolePages, choose
from chats.filters import StateFilter, TypeFilter
from chats.models import Chat, ChatMember
from chats.rooms import MAX_MEMBERS

HISTORY: Final = 20
OF_ONE: Final = 2_000
"""Chats of one user that a page looks through: each is a row of two tables, on pages of its own."""


class ChatPages(ChatActions, ConsolePages):
    list_display = ("created", "named", "kind", "state", "head", "members_", "person")
    list_display_links = ("created", "named")
    list_filter = (TimeFilter, TypeFilter, StateFilter, UserFilter)
    search_fields = ("id",)
    search_help_text = (
        "A whole chat id, a member's user id or e-mail address, or a part of the title"
    )
    empty_title = "No chats here"
    empty_help = (
        "Widen the time, or search for a whole chat id or for a member by id or e-mail address."
    )
    change_form_template = "console/chat.html"
    person_column = "created_by"
    export_columns = (
        "id", "type", "title", "last_seq", "member_count", "created_by", "email", "created_at",
        "updated_at", "deleted_at",
    )  # fmt: skip

    @admin.display(description="Created (UTC)")
    def created(self, row: Chat) -> str:
        return instant(row.created_at)

    @admin.display(description="Title")
    def named(self, row: Chat) -> str:
        return row.title or row.pk

    @admin.display(description="Type")
    def kind(self, row: Chat) -> str:
        return row.get_type_display()

    @display(description="State", label={"live": "success", "deleted": "warning"})
    def state(self, row: Chat) -> str:
        return "live" if row.deleted_at is None else "deleted"

    @admin.display(description="Created by")
    def person(self, row: Chat) -> str:
        return self.named_person(row)

    @admin.display(description="Newest number")
    def head(self, row: Chat) -> str:
        return number(row.last_seq)

    @admin.display(description="Members")
    def members_(self, row: Any) -> str:
        return number(row.member_count)

    def complete(self, rows: Sequence[Any]) -> None:
        super().complete(rows)
        members = ChatMember.objects.filter(chat_id__in=[row.pk for row in rows])
        counted = members.order_by().values_list("chat_id").annotate(Count("pk"))
        counts = dict(counted) if rows else {}
        for row in rows:
            row.member_count = counts.get(row.pk, 0)

    def search_for(self, selection: Selection, term: str) -> None:
        if lookup.is_chat(term):
            selection.led &= Q(pk=term)
        elif users.emails_of([term]) or lookup.has_chats(term):
            choose(selection, term)
        else:
            selection.narrowed &= Q(title__icontains=term)

    def line(self, selection: Selection) -> Line:
        """Return chats by age; one user's by when they came to be in them."""
        created = Q()
        if selection.begin is not None:
            created &= Q(created_at__gte=selection.begin)
        if selection.end is not None:
            created &= Q(created_at__lt=selection.end)
        if selection.user_id is None:
            rows = Chat.objects.filter(selection.led & created)
            return DatedLine(rows, "id", narrowed=selection.narrowed)
        mine = ChatMember.objects.filter(user_id=selection.user_id).select_related("chat")
        return ChatsOfOne(
            mine.filter(_of_chat(selection.led)),
            "chat_id",
            narrowed=_of_chat(selection.narrowed & created),
            slice=OF_ONE,
            dated="joined_at",
        )

    def around(self, request: HttpRequest, row: Chat) -> dict[str, Any]:
        members = list(ChatMember.objects.filter(chat=row).order_by("joined_at", "id"))
        members.sort(key=lambda member: member.role != ChatMember.Role.OWNER)
        people = [str(member.user_id) for member in members if member.user_id]
        emails = users.emails_of([row.created_by, *people])
        return {
            "chat": row,
            "title": str(row),
            "subtitle": None,
            "members": [(member, *_person(member, emails)) for member in members],
            "max_members": MAX_MEMBERS,
            "people": len(people),
            "counts": self.counts(row),
            "max_counted": MAX_COUNTED,
            "creator": emails.get(row.created_by, ""),
            "creator_url": link_to("accounts_user_change", row.created_by),
            "may_list_messages": request.user.has_perm("chats.view_chatmessage"),
            "entries": audit.of(audit.Subject.of(row), limit=HISTORY),
        }


@dataclass(frozen=True)
class ChatsOfOne(DatedLine):
    """Memberships of one user, read along their index and shown as the chats they are in."""

    def page(self, size: int, *, after: Any = None) -> Page:
        return _chats_of(super().page(size, after=after))

    def page_back(self, size: int, *, before: Any) -> Page:
        return _chats_of(super().page_back(size, before=before))


def _chats_of(page: Page) -> Page:
    return replace(page, rows=[membership.chat for membership in page.rows])


def _person(member: ChatMember, emails: Mapping[str, str]) -> tuple[str, str]:
    """Return a member's address and page; a character has neither."""
    if member.user_id is None:
        return "", ""
    return emails.get(member.user_id, ""), link_to("accounts_user_change", member.user_id)


def _of_chat(condition: Q) -> Q:
    """Return what holds for a chat as what holds for a membership of it."""
    children: list[Any] = list(condition.children)
    parts = [
        _of_chat(part) if isinstance(part, Q) else (f"chat__{part[0]}", part[1])
        for part in children
    ]
    return Q(*parts, _connector=condition.connector, _negated=condition.negated)
