"""Chats: the list that finds one, and the page that says who is in it and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.enums import ActionVariant

from accounts import users
from airi_server.pages.columns import action, display, instant, link_to, number
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.operators import holds
from airi_server.pages.paging import DatedKeysetQuery, KeysetPage, KeysetQuery
from airi_server.runtime import audit
from chats import deletion, options
from chats.admin import lookup
from chats.admin.base import (
    ChatReasonForm,
    ChatStateFilter,
    ConsolePages,
    ReadForm,
    TypeFilter,
    choose,
)
from chats.models import Chat, ChatLeaver, ChatMember, ChatMessage

# unfold has no types of its own.
if TYPE_CHECKING:
    from airi_server.pages.operators import OperatorAdmin
else:
    OperatorAdmin = object

READ: Final = "chats.read_messages"
DELETE: Final = "chats.delete_chat"
MAX_COUNTED: Final = 10_000
MAX_EMPTIED: Final = 50_000
"""Messages that one press of the button erases: some seconds."""


class ChatCounts(NamedTuple):
    """What a chat holds, counted up to `MAX_COUNTED` rows; `is_cut` if there are more."""

    live: int
    tombstones: int
    is_cut: bool


class ChatActions(OperatorAdmin):
    """Mixed into the page of a chat, in front of `OperatorAdmin`."""

    actions_detail: Any = ("read", "remove")
    has_read_permission = holds(READ)
    has_remove_permission = holds(DELETE)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer to delete what is not deleted, or not to its end."""
        chat = self.get_object(request, unquote(object_id))
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        if chat is not None and self._has_something(chat):
            return offered
        return [one for one in offered if one.path != "remove"]

    def _has_something(self, chat: Chat) -> bool:
        counts = self.counts(chat)
        return chat.deleted_at is None or counts.live > 0 or counts.is_cut

    def counts(self, chat: Chat) -> ChatCounts:
        """Count the chat's rows, as far as that is quick."""
        rows = ChatMessage.objects.filter(chat=chat).order_by("seq").values("seq", "deleted_at")
        found = rows[: MAX_COUNTED + 1].aggregate(every=Count("*"), gone=Count("deleted_at"))
        live = found["every"] - found["gone"]
        return ChatCounts(live, found["gone"], found["every"] > MAX_COUNTED)

    @action(description="Read messages", url_path="read", permissions=["read"])
    def read(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what was said, once, to somebody who says why; that it was shown stays known."""
        chat: Chat = self.found(request, object_id)
        here = link_to("chats_chat_change", chat.pk)
        is_post = request.method == "POST"
        form = ReadForm(request.POST) if is_post else ReadForm.of(chat, request.GET.get("seq", ""))

        def act(cleaned: Mapping[str, Any], _at: datetime) -> HttpResponse:
            first, last = cleaned["first"], cleaned["last"]
            rows = ChatMessage.objects.filter(chat=chat, seq__gte=first, seq__lte=last)
            said = list(rows.order_by("seq"))
            sentence = f"Read the messages {first} to {last}: {cleaned['reason']}"
            facts = {"first": first, "last": last, "shown": len(said), "reason": cleaned["reason"]}
            self.record(request, READ, chat, sentence, facts=facts)
            emails = users.emails_of([message.author_id for message in said])
            shown = {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": f"{chat}: messages {first} to {last}",
                "chat": chat,
                "said": [(message, emails.get(message.author_id, "")) for message in said],
                "back": here,
            }
            # Loaded again, it shows nothing: each look is asked for and written down.
            headers = {"Content-Location": here}
            return TemplateResponse(request, "console/chat_read.html", shown, headers=headers)

        why = (
            "What people said to each other and to characters is shown once, on the next page. "
            "That you read it, which numbers and why stays in the audit log."
        )
        return self.confirm(request, form, act, title="Read messages", why=why, back=here)

    @action(
        description="Delete",
        url_path="remove",
        permissions=["remove"],
        variant=ActionVariant.DANGER,
    )
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        chat: Chat = self.found(request, object_id)
        here = link_to("chats_chat_change", chat.pk)
        closed_at: list[datetime] = []

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            closed = deletion.close_chat(chat_id=chat.pk, at=at)
            sentence = f"Deleted the chat: {cleaned['reason']}"
            facts = {"reason": cleaned["reason"], "newest_number": closed.last_seq}
            self.record(request, DELETE, chat, sentence, facts=facts)
            closed_at.append(at)
            return redirect(here)

        why = (
            f"Nobody will read or send anything in {chat} any more, and what was said there is "
            "erased for good. Numbers, authors and times stay."
        )
        form = ChatReasonForm(request.POST or None)
        answer = self.confirm(request, form, act, title="Delete the chat", why=why, back=here)
        if closed_at:  # and committed, so that no send waits for what follows
            emptied = deletion.empty_chat(chat_id=chat.pk, at=closed_at[0], most=MAX_EMPTIED)
            messages.success(request, _told(emptied))
        return answer


def _told(emptied: int) -> str:
    """Say what was done, and what is left to do."""
    rest = "" if emptied < MAX_EMPTIED else " For the rest press “Delete” again."
    return f"Deleted. Messages erased: {emptied:,}.{rest}"


HISTORY: Final = 20
MAX_LEAVERS: Final = 100
OF_ONE: Final = 2_000
"""Chats of one user that a page looks through: each is a row of two tables, on pages of its own."""


class ChatPages(ChatActions, ConsolePages):
    list_display = ("created", "named", "kind", "state", "head", "members_", "person")
    list_display_links = ("created", "named")
    list_filter = (TimeFilter, TypeFilter, ChatStateFilter, UserFilter)
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
            selection.indexed &= Q(pk=term)
        elif users.emails_of([term]) or lookup.has_chats(term):
            choose(selection, term)
        else:
            selection.filtered &= Q(title__icontains=term)

    def line(self, selection: Selection) -> KeysetQuery:
        """Return chats by age; one user's by when they came to be in them."""
        created = Q()
        if selection.begin is not None:
            created &= Q(created_at__gte=selection.begin)
        if selection.end is not None:
            created &= Q(created_at__lt=selection.end)
        if selection.user_id is None:
            rows = Chat.objects.filter(selection.indexed & created)
            return DatedKeysetQuery(rows, "id", filtered=selection.filtered)
        mine = ChatMember.objects.filter(user_id=selection.user_id).select_related("chat")
        return ChatsOfOne(
            mine.filter(_of_chat(selection.indexed)),
            "chat_id",
            filtered=_of_chat(selection.filtered & created),
            slice=OF_ONE,
            dated="joined_at",
        )

    def extra_context(self, request: HttpRequest, row: Chat) -> dict[str, Any]:
        members = list(ChatMember.objects.filter(chat=row).order_by("joined_at", "id"))
        members.sort(key=lambda member: member.role != ChatMember.Role.OWNER)
        people = [str(member.user_id) for member in members if member.user_id]
        leavers = list(ChatLeaver.objects.filter(chat=row).order_by("-id")[:MAX_LEAVERS])
        left = [leaver.user_id for leaver in leavers]
        emails = users.emails_of([row.created_by, *people, *left])
        return {
            "chat": row,
            "title": str(row),
            "subtitle": None,
            "members": [(member, *_named(member.user_id, emails)) for member in members],
            "max_members": options.CHAT_MEMBERS.read(),
            "leavers": [(one, *_named(one.user_id, emails)) for one in leavers],
            "max_leavers": MAX_LEAVERS,
            "people": len(people),
            "counts": self.counts(row),
            "max_counted": MAX_COUNTED,
            "creator": emails.get(row.created_by, ""),
            "creator_url": link_to("accounts_user_change", row.created_by),
            "may_list_messages": request.user.has_perm("chats.view_chatmessage"),
            "entries": audit.of(audit.Subject.of(row), limit=HISTORY),
        }


@dataclass(frozen=True)
class ChatsOfOne(DatedKeysetQuery):
    """Memberships of one user, read along their index and shown as the chats they are in."""

    def page(self, size: int, *, after: Any = None) -> KeysetPage:
        return _chats_of(super().page(size, after=after))

    def page_back(self, size: int, *, before: Any) -> KeysetPage:
        return _chats_of(super().page_back(size, before=before))


def _chats_of(page: KeysetPage) -> KeysetPage:
    return replace(page, rows=[membership.chat for membership in page.rows])


def _named(user_id: str | None, emails: Mapping[str, str]) -> tuple[str, str]:
    """Return somebody's address and page; a character has neither."""
    if user_id is None:
        return "", ""
    return emails.get(user_id, ""), link_to("accounts_user_change", user_id)


def _of_chat(condition: Q) -> Q:
    """Return what holds for a chat as what holds for a membership of it."""
    children: list[Any] = list(condition.children)
    parts = [
        _of_chat(part) if isinstance(part, Q) else (f"chat__{part[0]}", part[1])
        for part in children
    ]
    return Q(*parts, _connector=condition.connector, _negated=condition.negated)
