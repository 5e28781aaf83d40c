"""`/api/v1/characters`: making, finding, changing and liking characters."""

from __future__ import annotations

from typing import Annotated, Any, Final

from django.utils import timezone
from ninja import Query, Router, Status

from accounts.auth import AuthedRequest
from airi_server.kernel.schemas import ErrorBody
from chats.characters import characters, engagement
from chats.characters.api import answers, schemas

router = Router(tags=["Characters"], by_alias=True, exclude_none=True)

REFUSALS: Final[dict[int, Any]] = dict.fromkeys((400, 401, 403), ErrorBody)
OF_ONE: Final[dict[int, Any]] = {**REFUSALS, 404: ErrorBody}


@router.post("", response={201: answers.CharacterOut, **REFUSALS, 409: ErrorBody})
def create_character(request: AuthedRequest, payload: schemas.CharacterIn) -> Any:
    """Make a character with everything that belongs to it. You own it.

    Capability configurations are stored sealed and shown to nobody but you.
    """
    portrait = characters.create(
        caller=request.auth.user_id,
        at=timezone.now(),
        fields=payload.character.fields(),
        given=payload.parts(),
    )
    return Status(201, answers.CharacterOut.seen(portrait))


@router.get("", response={200: list[answers.ListedCharacterOut], **REFUSALS})
def list_characters(
    request: AuthedRequest,
    all: bool = False,  # noqa: A002, FBT001, FBT002  its name on the wire
    limit: Annotated[int | None, Query(ge=1, le=characters.MAX_LISTED)] = None,
    cursor: str | None = None,
) -> Any:
    """List your characters, or with `all` everybody's, newest first; 500 without a limit.

    The next page is what comes after a `cursor`: the `id` of the last character you have.
    """
    found = characters.listed(
        caller=request.auth.user_id, of_everybody=all, limit=limit, cursor=cursor
    )
    return [answers.ListedCharacterOut.seen(portrait) for portrait in found]


@router.get("/{id}", response={200: answers.CharacterOut, **OF_ONE})
def read_character(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Read anybody's character."""
    portrait = characters.details(caller=request.auth.user_id, character_id=id)
    return answers.CharacterOut.seen(portrait)


@router.patch("/{id}", response={200: answers.CharacterOut, **OF_ONE})
def change_character(request: AuthedRequest, id: str, payload: schemas.CharacterPatch) -> Any:  # noqa: A002  its name on the wire
    """Change your character. A list you give replaces the one there was."""
    portrait = characters.change(
        caller=request.auth.user_id,
        character_id=id,
        at=timezone.now(),
        fields=payload.fields(),
        given=payload.parts(),
    )
    return answers.CharacterOut.seen(portrait)


@router.delete("/{id}", response={204: None, **OF_ONE})
def delete_character(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Delete your character. Nobody sees it any more."""
    characters.delete(caller=request.auth.user_id, character_id=id, at=timezone.now())
    return Status(204, None)


@router.post("/{id}/like", response={200: answers.LikedCharacterOut, **OF_ONE})
def like_character(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Like a character, or stop liking it; `liked` is what holds now."""
    portrait, liked = engagement.toggle_like(
        caller=request.auth.user_id, character_id=id, at=timezone.now()
    )
    return answers.LikedCharacterOut.seen(portrait, liked=liked)


@router.post("/{id}/bookmark", response={200: answers.BookmarkedCharacterOut, **OF_ONE})
def bookmark_character(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Keep a character, or let go of it; `bookmarked` is what holds now."""
    portrait, bookmarked = engagement.toggle_bookmark(
        caller=request.auth.user_id, character_id=id, at=timezone.now()
    )
    return answers.BookmarkedCharacterOut.seen(portrait, bookmarked=bookmarked)
