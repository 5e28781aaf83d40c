"""`/api/v1/chats`: chats and their members. Messages travel over the socket."""

from __future__ import annotations

from typing import Annotated, Any, Final

from django.utils import timezone
from ninja import Query, Router, Status

from accounts.auth import AuthedRequest
from airi_server.kernel.schemas import ErrorBody
from chats import rooms, schemas

router = Router(tags=["Chats"], by_alias=True)

REFUSALS: Final[dict[int, Any]] = dict.fromkeys((400, 401, 403), ErrorBody)
OF_ONE: Final[dict[int, Any]] = {**REFUSALS, 404: ErrorBody}


@router.post("", response={201: schemas.NewChatOut, **REFUSALS, 409: ErrorBody})
def create_chat(request: AuthedRequest, payload: schemas.ChatIn) -> Any:
    """Make a chat and own it. An id that is taken answers 409, also to its members."""
    chat = rooms.create(
        caller=request.auth.user_id,
        at=timezone.now(),
        chat_id=payload.id,
        type=payload.type,
        title=payload.title,
        members=[member.someone() for member in payload.members],
    )
    return Status(201, schemas.NewChatOut.of(chat))


@router.get("", response={200: schemas.ChatsOut, **REFUSALS})
def list_chats(
    request: AuthedRequest,
    limit: Annotated[int | None, Query(ge=1, le=rooms.MAX_LISTED)] = None,
    cursor: str | None = None,
) -> Any:
    """List your chats, last changed first; 500 without a limit.

    Pass `nextCursor` back as `cursor` for the next page.
    """
    chats, next_cursor = rooms.of_user(caller=request.auth.user_id, limit=limit, cursor=cursor)
    return schemas.ChatsOut(
        chats=[schemas.ChatOut.of(chat) for chat in chats], next_cursor=next_cursor
    )


@router.get("/{id}", response={200: schemas.ChatWithMembersOut, **OF_ONE})
def read_chat(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Read a chat and who is in it, in the order in which they joined."""
    chat, members = rooms.details(caller=request.auth.user_id, chat_id=id)
    return schemas.ChatWithMembersOut.of(
        chat, members=[schemas.MemberOut.of(member) for member in members]
    )


@router.patch("/{id}", response={200: schemas.ChatOut, **OF_ONE})
def change_chat(request: AuthedRequest, id: str, payload: schemas.ChatPatch) -> Any:  # noqa: A002  its name on the wire
    """Rename a chat, as its owner or an admin."""
    title = payload.title if "title" in payload.model_fields_set else None
    chat = rooms.rename(caller=request.auth.user_id, chat_id=id, title=title, at=timezone.now())
    return schemas.ChatOut.of(chat)


@router.delete("/{id}", response={200: schemas.ChatOut, **OF_ONE})
def delete_chat(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Delete a chat for everybody, as its owner."""
    chat = rooms.delete(caller=request.auth.user_id, chat_id=id, at=timezone.now())
    return schemas.ChatOut.of(chat)


@router.post("/{id}/members", response={200: schemas.MemberOut, **OF_ONE, 409: ErrorBody})
def add_member(request: AuthedRequest, id: str, payload: schemas.MemberIn) -> Any:  # noqa: A002  its name on the wire
    """Put somebody into a chat, as its owner or an admin. Who is in it already stays."""
    member = rooms.add_member(
        caller=request.auth.user_id, chat_id=id, someone=payload.someone(), at=timezone.now()
    )
    return schemas.MemberOut.of(member)


@router.patch("/{id}/members/{member_id}", response={200: schemas.MemberOut, **OF_ONE})
def change_member(
    request: AuthedRequest,
    id: str,  # noqa: A002  its name on the wire
    member_id: str,
    payload: schemas.RoleIn,
) -> Any:
    """Make a user an admin or an ordinary member, as the chat's owner."""
    member = rooms.set_role(
        caller=request.auth.user_id, chat_id=id, member_id=member_id, role=payload.role
    )
    return schemas.MemberOut.of(member)


@router.delete("/{id}/members/{member_id}", response={200: schemas.MemberOut, **OF_ONE})
def remove_member(request: AuthedRequest, id: str, member_id: str) -> Any:  # noqa: A002  its name on the wire
    """Leave a chat, or take somebody out as its owner or an admin.

    When the owner leaves, the oldest admin owns the chat, else the oldest user in it.
    """
    member = rooms.remove_member(caller=request.auth.user_id, chat_id=id, member_id=member_id)
    return schemas.MemberOut.of(member)
