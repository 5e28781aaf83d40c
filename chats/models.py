"""Chats: who is in them, and what was said, numbered without gaps."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import CheckConstraint, F, Func, Index, Q, UniqueConstraint, Value
from django.db.models.functions import Length, Now
from django.db.models.lookups import LessThanOrEqual

import chats.characters.models  # noqa: F401  where Django finds them
from airi_server.kernel import ids

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
MAX_TITLE = 200
MAX_CONTENT_BYTES = 262_144
MAX_MESSAGES = 500
"""The most in one call, in one page and in one push."""
MAX_PAGE_BYTES = 1_048_576
"""The most content in one page or push of more than one message; a frame carries it twice."""
MAX_SUPERSEDED = 32
"""Contents of one message that were edited away and are known; so in `send_messages.sql`."""


class Chat(models.Model):
    """A conversation.

    `last_seq` is the highest number handed out in it. Whoever numbers a message or changes the
    members holds the lock on this row: that makes numbers dense, and what is numbered visible in
    order. Written by `chats.rooms`, `chats.deletion` and the statement of `chats.messages`.
    """

    class Type(models.TextChoices):
        PRIVATE = "private", "Private"
        BOT = "bot", "With a character"
        GROUP = "group", "Group"
        CHANNEL = "channel", "Channel"

    id = models.TextField(
        primary_key=True, default=ids.nanoid, db_collation="C", editable=False
    )  # often the client's
    type = models.TextField(choices=Type, default=Type.GROUP)
    title = models.TextField(null=True)  # noqa: DJ001  NULL: never had one (contract)
    last_seq = models.BigIntegerField(default=0)
    created_by = models.TextField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "chat"
        permissions = [
            ("read_messages", "Can read what is said in chats"),
            ("export_chats", "Can export chats and characters, without what is said"),
        ]
        constraints = [
            # Ids become parts of channel groups.
            CheckConstraint(name="chat_id_shape", condition=Q(id__regex=ID_PATTERN)),
            CheckConstraint(
                name="chat_type_known",
                condition=Q(type__in=("private", "bot", "group", "channel")),
            ),
            CheckConstraint(
                name="chat_title_short",
                condition=LessThanOrEqual(Length("title"), Value(MAX_TITLE)),
            ),
            CheckConstraint(name="chat_last_seq_not_negative", condition=Q(last_seq__gte=0)),
        ]
        indexes = [Index(name="chat_newest", fields=["-created_at", "-id"])]

    def __str__(self) -> str:
        return self.title or self.id


class ChatMember(models.Model):
    """Somebody in a chat: a person, or a character or bot that people talk to.

    Gone when they leave. `is_silent` is somebody whom others have put in and who has sent nothing
    since: that they are here says nothing about whom they know. Written by `chats.rooms` and
    `chats.deletion`, under the chat's lock, and `is_silent` by the statement of `chats.messages`.
    """

    class Type(models.TextChoices):
        USER = "user", "Person"
        CHARACTER = "character", "Character"
        BOT = "bot", "Bot"

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        ADMIN = "admin", "Admin"
        MEMBER = "member", "Member"

    id = models.TextField(primary_key=True, default=ids.nanoid, db_collation="C", editable=False)
    # No index of its own: the unique ones begin with it.
    chat = models.ForeignKey(Chat, on_delete=models.PROTECT, db_index=False, related_name="members")
    member_type = models.TextField(choices=Type)
    user_id = models.TextField(null=True)  # noqa: DJ001  NULL: not a person
    character_id = models.TextField(null=True)  # noqa: DJ001  NULL: a person
    role = models.TextField(choices=Role, default=Role.MEMBER)
    is_silent = models.BooleanField(default=False, db_default=False)
    joined_at = models.DateTimeField()

    class Meta:
        db_table = "chat_member"
        verbose_name = "member"
        constraints = [
            UniqueConstraint(name="chat_member_user_uniq", fields=["chat", "user_id"]),
            UniqueConstraint(
                name="chat_member_character_uniq", fields=["chat", "member_type", "character_id"]
            ),
            UniqueConstraint(
                name="chat_member_one_owner", fields=["chat"], condition=Q(role="owner")
            ),
            CheckConstraint(
                name="chat_member_is_a_user_or_a_character",
                condition=Q(member_type="user", user_id__isnull=False, character_id__isnull=True)
                | Q(
                    member_type__in=("character", "bot"),
                    user_id__isnull=True,
                    character_id__isnull=False,
                ),
            ),
            CheckConstraint(
                name="chat_member_user_id_shape",
                condition=Q(user_id__isnull=True) | Q(user_id__regex=ID_PATTERN),
            ),
            CheckConstraint(
                name="chat_member_character_id_shape",
                condition=Q(character_id__isnull=True) | Q(character_id__regex=ID_PATTERN),
            ),
            CheckConstraint(
                name="chat_member_role_known", condition=Q(role__in=("owner", "admin", "member"))
            ),
            CheckConstraint(
                name="chat_member_only_users_manage",
                condition=Q(role="member") | Q(member_type="user"),
            ),
        ]
        indexes = [
            Index(
                name="chat_member_chats_of_user",
                fields=["user_id", "chat"],
                condition=Q(user_id__isnull=False),
            ),
            Index(
                name="chat_member_newest_of_user",
                fields=["user_id", "-joined_at", "-chat"],
                condition=Q(user_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.user_id or self.character_id} of {self.chat_id}"


class ChatLeaver(models.Model):
    """Somebody who has left a chat by themselves: nobody else can put them in again.

    A row is here or in `chat_member`, never in both; a trigger sees to it. Who was taken out has
    none. Written by `chats.rooms` and `chats.deletion`, under the chat's lock.
    """

    chat = models.ForeignKey(Chat, on_delete=models.PROTECT, db_index=False, related_name="leavers")
    user_id = models.TextField()
    left_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "chat_leaver"
        default_permissions = ()
        constraints = [
            UniqueConstraint(name="chat_leaver_once", fields=["chat", "user_id"]),
            CheckConstraint(
                name="chat_leaver_user_id_shape", condition=Q(user_id__regex=ID_PATTERN)
            ),
        ]
        # For those who leave for good.
        indexes = [Index(name="chat_leaver_of_user", fields=["user_id", "chat"])]

    def __str__(self) -> str:
        return f"{self.user_id} who left {self.chat_id}"


class ChatAddition(models.Model):
    """How many people were put into chats in a window of time, counted for one user.

    One row for each user and kind, whose window only moves forward. Written by `chats.additions`.
    """

    class Kind(models.TextChoices):
        BY_THEM = "by_them", "Whom they put in"
        BY_STRANGERS = "by_strangers", "How often strangers put them in"

    kind = models.TextField(choices=Kind)
    user_id = models.TextField()
    begins_at = models.DateTimeField()
    people = models.BigIntegerField()

    class Meta:
        db_table = "chat_addition"
        default_permissions = ()
        constraints = [
            UniqueConstraint(name="chat_addition_once", fields=["user_id", "kind"]),
            CheckConstraint(
                name="chat_addition_kind_known", condition=Q(kind__in=("by_them", "by_strangers"))
            ),
            CheckConstraint(name="chat_addition_people_positive", condition=Q(people__gt=0)),
            CheckConstraint(
                name="chat_addition_user_id_shape", condition=Q(user_id__regex=ID_PATTERN)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.user_id}: {self.people} since {self.begins_at}"


class ChatMessage(models.Model):
    """One message; `seq` is where it stands in its chat.

    An edit takes the chat's next number, and so does a deletion, which leaves the row behind as
    a tombstone without content. `author_id` is who pushed it and who alone may edit it;
    `sender_id` is what the clients are told: the author of a `user` message, else NULL.
    `superseded` are hashes of what it said before its edits, the newest last: one of those contents
    that comes late is a retry (ADR 0043). Written by the statement of `chats.messages`.
    """

    class Role(models.TextChoices):
        SYSTEM = "system", "System"
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"
        TOOL = "tool", "Tool"
        ERROR = "error", "Error"

    id = models.TextField(primary_key=True, db_collation="C", editable=False)  # the client's
    chat = models.ForeignKey(
        Chat, on_delete=models.PROTECT, db_index=False, related_name="messages"
    )
    seq = models.BigIntegerField()
    sender_id = models.TextField(null=True)  # noqa: DJ001  NULL: not said by a person
    author_id = models.TextField()
    role = models.TextField(choices=Role)
    content = models.TextField()
    superseded = ArrayField(models.BinaryField(), null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "chat_message"
        verbose_name = "message"
        constraints = [
            UniqueConstraint(name="chat_message_seq_uniq", fields=["chat", "seq"]),
            CheckConstraint(name="chat_message_id_shape", condition=Q(id__regex=ID_PATTERN)),
            CheckConstraint(name="chat_message_seq_positive", condition=Q(seq__gt=0)),
            CheckConstraint(
                name="chat_message_role_known",
                condition=Q(role__in=("system", "user", "assistant", "tool", "error")),
            ),
            CheckConstraint(
                name="chat_message_sender_is_the_author_of_user_messages",
                condition=Q(role="user", sender_id__isnull=False, sender_id=F("author_id"))
                | (~Q(role="user") & Q(sender_id__isnull=True)),
            ),
            CheckConstraint(
                name="chat_message_content_bounded",
                condition=LessThanOrEqual(
                    Func("content", function="octet_length", output_field=models.IntegerField()),
                    Value(MAX_CONTENT_BYTES),
                ),
            ),
            CheckConstraint(
                name="chat_message_tombstone_is_empty",
                condition=Q(deleted_at__isnull=True) | Q(content=""),
            ),
            CheckConstraint(
                name="chat_message_superseded_bounded",
                condition=LessThanOrEqual(
                    Func("superseded", function="cardinality", output_field=models.IntegerField()),
                    Value(MAX_SUPERSEDED),
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} #{self.seq}"
