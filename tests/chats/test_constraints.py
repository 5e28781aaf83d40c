"""What the database insists on, by the name of each claim."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from chats.models import Chat, ChatMember, ChatMessage
from tests.factories import chats as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def room():
    chat = make.chat("mio")
    ChatMessage.objects.create(**message(chat))
    return chat


def message(chat, **columns):
    return {
        "id": "m1", "chat": chat, "seq": 1, "sender_id": "ria", "author_id": "ria",
        "role": "user", "content": "hi", "created_at": make.NOW, "updated_at": make.NOW, **columns,
    }  # fmt: skip


def refused(claim):
    return pytest.raises(IntegrityError, match=f'"{claim}"')


CHAT: dict[str, dict[str, Any]] = {
    "chat_id_shape": {"id": "a.b"},
    "chat_type_known": {"type": "dm"},
    "chat_title_short": {"title": "x" * 201},
    "chat_last_seq_not_negative": {"last_seq": -1},
}
MEMBER: dict[str, dict[str, Any]] = {
    "chat_member_is_a_user_or_a_character": {"member_type": "bot"},
    "chat_member_user_id_shape": {"user_id": "a.b"},
    "chat_member_role_known": {"role": "king"},
    "chat_member_one_owner": {"role": "owner"},
    "chat_member_user_uniq": {"user_id": "ria"},
    "chat_member_only_users_manage": {
        "member_type": "bot", "user_id": None, "character_id": "a", "role": "admin"},
    "chat_member_character_id_shape": {
        "member_type": "bot", "user_id": None, "character_id": "a b"},
}  # fmt: skip
MESSAGE: dict[str, dict[str, Any]] = {
    "chat_message_pkey": {"seq": 2},
    "chat_message_seq_uniq": {"id": "m2"},
    "chat_message_id_shape": {"id": "a b", "seq": 2},
    "chat_message_seq_positive": {"id": "m2", "seq": 0},
    "chat_message_role_known": {"id": "m2", "seq": 2, "role": "developer", "sender_id": None},
    "chat_message_content_bounded": {"id": "m2", "seq": 2, "content": "é" * 131_073},
    "chat_message_tombstone_is_empty": {"id": "m2", "seq": 2, "deleted_at": make.NOW},
}


@pytest.mark.parametrize("claim", CHAT)
def test_of_a_chat(room, claim):
    with refused(claim), transaction.atomic():
        Chat.objects.filter(pk=room.pk).update(**CHAT[claim])


@pytest.mark.parametrize("claim", MEMBER)
def test_of_a_member(room, claim):
    with refused(claim), transaction.atomic():
        ChatMember.objects.filter(chat=room, user_id="mio").update(**MEMBER[claim])


def test_of_a_character_twice(room):
    airi = {"chat": room, "member_type": "bot", "character_id": "a", "joined_at": make.NOW}
    ChatMember.objects.create(**airi)
    with refused("chat_member_character_uniq"), transaction.atomic():
        ChatMember.objects.create(**airi)


@pytest.mark.parametrize("claim", MESSAGE)
def test_of_a_message(room, claim):
    with refused(claim), transaction.atomic():
        ChatMessage.objects.create(**message(room, **MESSAGE[claim]))


@pytest.mark.parametrize(
    "wrong", [{"sender_id": None}, {"sender_id": "mio"}, {"role": "assistant"}]
)
def test_of_a_sender(room, wrong):
    with refused("chat_message_sender_is_the_author_of_user_messages"), transaction.atomic():
        ChatMessage.objects.create(**message(room, id="m2", seq=2, **wrong))
