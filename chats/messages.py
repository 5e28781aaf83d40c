"""Messages: send, pull, and what was sent since. One round trip each, on the hot pool.

The only hander-out of sequence numbers besides `chats.deletion`. A refused call has done nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from airi_server.kernel import database, resources
from airi_server.kernel.errors import Conflict, Forbidden, InvalidRequest
from airi_server.kernel.group_commit import GroupCommit
from chats.membership import ChatNotFound, NotAMember, is_id
from chats.models import MAX_CONTENT_BYTES, MAX_MESSAGES, MAX_PAGE_BYTES, ChatMessage
from chats.ranges import Range

SEND_SQL: Final = "SELECT * FROM chats_send_messages(%(calls)s::json, %(chats)s::text[])"
PULL_MESSAGES_SQL: Final = resources.read_text("chats", "sql/pull_messages.sql")
READ_RANGE_SQL: Final = resources.read_text("chats", "sql/read_range.sql")
READ_HEADS_SQL: Final = resources.read_text("chats", "sql/read_heads.sql")
DEFAULT_PAGE: Final = 100
MAX_SEND_LENGTH: Final = 1_048_576
"""The most characters in one send, which is what one frame can carry."""
MAX_SEQ: Final = 2**63 - 1
ROLES: Final = frozenset(ChatMessage.Role.values)


class MessageIdTaken(Conflict):
    """A message of another chat has this id."""


class NotTheAuthor(Forbidden):
    """The message is somebody else's."""


@dataclass(frozen=True, slots=True)
class MessageDraft:
    """What a client sends: its own id, one of five roles, and text."""

    id: str
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """A live message as every client reads it (camelCase on the wire); times in milliseconds."""

    id: str
    chat_id: str
    sender_id: str | None
    role: str
    content: str
    seq: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A tombstone: what had this id is gone since `seq`."""

    id: str
    seq: int


@dataclass(frozen=True, slots=True)
class SendResult:
    """What a send did.

    Args:
        seq: The answer to the caller: the highest number among its messages.
        from_seq: The first number it handed out; with nothing new, `to_seq` + 1.
        to_seq: The last number it handed out.
        is_new: Whether anything is to be pushed; False for an identical resend and a late retry.
        members: The user ids of the chat's members at the commit, the caller among them.
        seen: The numbers of which the caller knows what stands there, since it is what they sent.
    """

    seq: int
    from_seq: int
    to_seq: int
    is_new: bool
    members: tuple[str, ...]
    seen: Range | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a chat after a cursor, by ascending number.

    Args:
        messages: Live messages.
        seq: The next cursor: the page's last number if there is more, else the chat's head, or
            the end of the range that was asked for.
        deleted: Tombstones in the page's range.
    """

    messages: tuple[LiveMessage, ...]
    seq: int
    deleted: tuple[Tombstone, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chat has come that a user is in, and whether it was deleted there."""

    user_id: str
    chat_id: str
    seq: int
    is_deleted: bool = False


async def send(
    *, caller: str, chat_id: str, messages: Sequence[MessageDraft], known: Sequence[Range] = ()
) -> SendResult:
    """Append new messages in order, then edit those the caller has sent before.

    An identical resend keeps its number and nothing is new; a message that was deleted stays
    deleted. A former content of an edited message is an edit back if the caller's socket has been
    sent the number of what stands, which `known` says; else it is a late retry and changes
    nothing. Whole or not at all, and on disk when this returns. Numbers and times are the
    database's, under the chat's lock. Safe to call again when the outcome is unknown.

    Raises:
        ChatNotFound, NotAMember: Refused (404, 403).
        MessageIdTaken: An id belongs to a message of another chat (409).
        NotTheAuthor: An id belongs to somebody else's message (403).
        InvalidRequest: A bound is broken, or one id comes twice with different content (400).
        Overloaded: Too many sends are waiting (503).
        psycopg.OperationalError, PoolTimeout: The database is away (`database.AWAY`).
    """
    rows = _distinct(messages)
    if not is_id(chat_id):
        raise ChatNotFound
    call = {"chat_id": chat_id, "user_id": caller, "messages": rows, "known": known}
    attempts = 0

    async def attempt() -> SendResult:
        nonlocal attempts
        attempts += 1
        return _sent(await _sends.submit(call), is_empty=not rows)

    sent = await database.retried(attempt)
    if attempts == 1 or sent.is_new or sent.seen is None:
        return sent
    # The lost attempt may have committed without anybody having been told.
    return _told_again(sent, len(rows))


async def pull(*, caller: str, chat_id: str, after_seq: int, limit: int | None = None) -> Page:
    """Return what has a number above `after_seq`, read in one snapshot with the chat's head.

    `limit` counts messages and tombstones: missing, 0 or negative is 100, and at most 500. The
    page ends before that where its content would exceed `MAX_PAGE_BYTES`.

    Raises:
        ChatNotFound, NotAMember: Refused.
        psycopg.OperationalError, PoolTimeout: The database is away.
    """
    page = min(limit, MAX_MESSAGES) if limit and limit > 0 else DEFAULT_PAGE
    params = {
        "chat_id": chat_id,
        "user_id": caller,
        "after_seq": max(0, min(after_seq, MAX_SEQ)),
        "page": page,
        "max_bytes": MAX_PAGE_BYTES,
    }
    found = await database.fetch(PULL_MESSAGES_SQL, params) if is_id(chat_id) else []
    if not found:
        raise ChatNotFound
    is_member, head = found[0][:2]
    if not is_member:
        raise NotAMember
    return _page(chat_id, [row[2:] for row in found if row[2]], wanted=page, end=head)


async def between(*, chat_id: str, from_seq: int, to_seq: int) -> Page:
    """Return what now has a number in a range, or the first page of it, to deliver to members.

    The one read without a caller: whoever asks holds an event that names the members. What was
    edited or deleted since is not in the range any more; its own event brings it.
    """
    params = {
        "chat_id": chat_id,
        "from_seq": from_seq,
        "to_seq": to_seq,
        "page": MAX_MESSAGES,
        "max_bytes": MAX_PAGE_BYTES,
    }
    rows = await database.fetch(READ_RANGE_SQL, params)
    return _page(chat_id, rows, wanted=MAX_MESSAGES, end=to_seq)


async def heads(*, user_ids: Sequence[str], within_s: int) -> list[Head]:
    """Return the heads of the users' chats where something happened in the last seconds."""
    params = {"user_ids": list(user_ids), "within_s": within_s}
    return [Head(*row) for row in await database.fetch(READ_HEADS_SQL, params)]


def _distinct(messages: Sequence[MessageDraft]) -> list[dict[str, str]]:
    """Return the messages as rows, each id once.

    Raises:
        InvalidRequest: A bound is broken, or one id comes twice with different content.
    """
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest(f"At most {MAX_MESSAGES} messages can be sent at once.")
    seen: dict[str, MessageDraft] = {}
    for message in messages:
        _ensure_storable(message)
        if seen.setdefault(message.id, message) != message:
            raise InvalidRequest(f"The id {message.id} comes twice with different content.")
    if sum(len(message.content) for message in seen.values()) > MAX_SEND_LENGTH:
        raise InvalidRequest("The messages are too long together.")
    return [{"id": m.id, "role": m.role, "content": m.content} for m in seen.values()]


def _ensure_storable(message: MessageDraft) -> None:
    if not is_id(message.id):
        raise InvalidRequest("A message id has 1 to 64 characters of A-Z, a-z, 0-9, _ and -.")
    if message.role not in ROLES:
        raise InvalidRequest(f"The role is one of {', '.join(sorted(ROLES))}.")
    try:
        size = len(message.content.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("The content has half of a surrogate pair.") from None
    if "\x00" in message.content:
        raise InvalidRequest("The content has a NUL character.")
    if size > MAX_CONTENT_BYTES:
        raise InvalidRequest(f"The content may have at most {MAX_CONTENT_BYTES} bytes.")


def _sent(row: database.Row, *, is_empty: bool) -> SendResult:
    """Read one row that `send_messages.sql` returned, after its ordinal.

    Raises:
        ChatNotFound, NotAMember, MessageIdTaken, NotTheAuthor: Refused.
    """
    outcome, at_id, seq, from_seq, to_seq, members = row
    details = {"id": at_id} if at_id else None
    if outcome == "no_chat":
        raise ChatNotFound
    if outcome == "no_member":
        raise NotAMember
    if outcome == "other_chat":
        raise MessageIdTaken("A message of another chat has this id.", details=details)
    if outcome == "other_author":
        raise NotTheAuthor("Only its author may change a message.", details=details)
    is_new = to_seq >= from_seq
    seen = (from_seq, to_seq) if is_new else (seq, seq)
    is_unseen = is_empty or (outcome == "late" and not is_new)
    return SendResult(seq, from_seq, to_seq, is_new, tuple(members), None if is_unseen else seen)


def _told_again(sent: SendResult, count: int) -> SendResult:
    """Return a resend as new, as far as its messages still stand together at their numbers."""
    return replace(sent, from_seq=max(1, sent.seq - count + 1), to_seq=sent.seq, is_new=count > 0)


def _page(chat_id: str, rows: Sequence[database.Row], *, wanted: int, end: int) -> Page:
    """Return rows as a page; `end` is its cursor unless there was more than the rows."""
    messages, deleted, last = [], [], end
    for found, id_, sender_id, role, content, seq, created_at, updated_at, is_deleted in rows:
        last = end if len(rows) == found < wanted else seq
        if is_deleted:
            deleted.append(Tombstone(id_, seq))
        else:
            messages.append(
                LiveMessage(id_, chat_id, sender_id, role, content, seq, created_at, updated_at)
            )
    return Page(tuple(messages), last, tuple(deleted))


async def _send_batch(
    lent: database.Connection, calls: Sequence[dict[str, Any]]
) -> list[database.Row]:
    params = {
        "calls": orjson.dumps(calls).decode(),
        "chats": sorted({call["chat_id"] for call in calls}),
    }
    found = {row[0]: row[1:] for row in await database.execute(lent, SEND_SQL, params)}
    return [found[position] for position in range(1, len(calls) + 1)]


_sends: GroupCommit[dict[str, Any], database.Row] = GroupCommit(_send_batch)
