"""Finds chats, messages and characters by what an operator has in hand, through an index."""

from __future__ import annotations

from typing import Final

from django.db.models import Value
from django.db.models.functions import Lower

from chats import membership
from chats.characters import ownership
from chats.characters.models import Character, Translation
from chats.models import Chat, ChatMember, ChatMessage

MAX_NAMED: Final = 100
"""Characters of one name that are found: the newest translations with it."""


def is_chat(chat_id: str) -> bool:
    return membership.is_id(chat_id) and Chat.objects.filter(pk=chat_id).exists()


def is_message(message_id: str) -> bool:
    return membership.is_id(message_id) and ChatMessage.objects.filter(pk=message_id).exists()


def is_character(character_id: str) -> bool:
    return ownership.is_id(character_id) and Character.objects.filter(pk=character_id).exists()


def has_chats(user_id: str) -> bool:
    """Whether somebody of this id is in a chat, or was left in one."""
    return ChatMember.objects.filter(user_id=user_id).exists()


def has_characters(user_id: str) -> bool:
    return Character.objects.filter(owner_id=user_id).exists()


def characters_named(name: str) -> list[str]:
    """Return characters that are called just that in some language, whatever the case."""
    named = Translation.objects.alias(lower_name=Lower("name")).filter(
        lower_name=Lower(Value(name))
    )
    newest = named.order_by("-created_at").values_list("character_id", flat=True)
    return list(dict.fromkeys(newest[:MAX_NAMED]))
