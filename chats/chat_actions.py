"""What an operator does to one chat: reading what was said, and deleting it. Each with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.enums import ActionVariant

from accounts import users
from airi_server.pages.columns import action, link_to
from airi_server.pages.operators import holds
from chats import deletion
from chats.forms import ReadForm, ReasonForm
from chats.models import Chat, ChatMessage

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


class Counts(NamedTuple):
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

    def counts(self, chat: Chat) -> Counts:
        """Count the chat's rows, as far as that is quick."""
        rows = ChatMessage.objects.filter(chat=chat).order_by("seq").values("seq", "deleted_at")
        found = rows[: MAX_COUNTED + 1].aggregate(every=Count("*"), gone=Count("deleted_at"))
        live = found["every"] - found["gone"]
        return Counts(live, found["gone"], found["every"] > MAX_COUNTED)

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
            return TemplateResponse(request, "console/chat_read.html", shown)

        why = (
            "What people said to each other and to characters is shown once, on the next page. "
            "That you read it, which numbers and why stays in the audit log."
        )
        return self.ask(request, form, act, title="Read messages", why=why, back=here)

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
        form = ReasonForm(request.POST or None)
        answer = self.ask(request, form, act, title="Delete the chat", why=why, back=here)
        if closed_at:  # and committed, so that no send waits for what follows
            emptied = deletion.empty_chat(chat_id=chat.pk, at=closed_at[0], most=MAX_EMPTIED)
            messages.success(request, _told(emptied))
        return answer


def _told(emptied: int) -> str:
    """Say what was done, and what is left to do."""
    rest = "" if emptied < MAX_EMPTIED else " For the rest press “Delete” again."
    return f"Deleted. Messages erased: {emptied:,}.{rest}"
