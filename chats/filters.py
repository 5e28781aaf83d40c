"""What the lists of chats, messages and characters can be filtered by."""

from __future__ import annotations

from django.db.models import Q

from airi_server.pages.filters import ChoiceFilter, Selection, TextFilter
from chats.models import Chat, ChatMessage

LIVE_OR_DELETED = (("live", "Live"), ("deleted", "Deleted"))


class TypeFilter(ChoiceFilter):
    title, names = "Type", ("type",)
    options = Chat.Type.choices

    def choose(self, selection: Selection, value: str) -> None:
        selection.narrowed &= Q(type=value)


class StateFilter(ChoiceFilter):
    title, names = "State", ("state",)
    options = LIVE_OR_DELETED

    def choose(self, selection: Selection, value: str) -> None:
        selection.narrowed &= Q(deleted_at__isnull=value == "live")


class RoleFilter(ChoiceFilter):
    title, names = "Role", ("role",)
    options = ChatMessage.Role.choices

    def choose(self, selection: Selection, value: str) -> None:
        selection.narrowed &= Q(role=value)


class ChatFilter(TextFilter):
    """One chat's messages: their index begins with it."""

    title, names = "Chat id", ("chat",)

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.led &= Q(chat_id=self.value())


class AuthorFilter(TextFilter):
    title, names, column = "Author's user id", ("user",), "author_id"


class OwnerFilter(TextFilter):
    """One user's characters: an index begins with the owner."""

    title, names = "Owner's user id", ("user",)

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.user_id = self.value()
