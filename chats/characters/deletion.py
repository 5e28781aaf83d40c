"""What operators delete of characters, and what goes when a user leaves for good."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import Q

from chats.characters import ownership, telemetry
from chats.characters.models import Bookmark, Capability, Character, Like

BATCH = 500


def delete_character(*, character_id: str, at: datetime) -> None:
    """Make anybody's character invisible for everybody, as an operator.

    Raises:
        CharacterNotFound: There is none, or somebody was faster.
    """
    with transaction.atomic():
        character = ownership.for_anybody(character_id, lock=True)
        character.deleted_at = character.updated_at = at
        character.save(update_fields=["deleted_at", "updated_at"])
    telemetry.DELETED.add(1)


def delete_user_data(*, user_id: str, at: datetime) -> None:
    """Delete what a user leaves behind in characters; doing it again changes nothing.

    Characters that they own or made become invisible, and the keys of those they own are erased.
    Their likes and bookmarks go, and the counters with them. In batches, each in its own
    transaction: interrupted, it goes on where it was.
    """
    while _deleted_some_characters(user_id, at):
        pass
    for kind in (Like, Bookmark):
        while _removed_some(kind, user_id):
            pass


def _deleted_some_characters(user_id: str, at: datetime) -> bool:
    with transaction.atomic():
        theirs = Character.objects.filter(Q(owner_id=user_id) | Q(creator_id=user_id))
        live = theirs.filter(deleted_at__isnull=True).order_by("id")
        locked = list(live.select_for_update(no_key=True)[:BATCH])
        Character.objects.filter(pk__in=[character.pk for character in locked]).update(
            deleted_at=at, updated_at=at
        )
        Capability.objects.filter(character__owner_id=user_id).delete()
    telemetry.DELETED.add(len(locked))
    return bool(locked)


def _removed_some(kind: type[Like | Bookmark], user_id: str) -> bool:
    rows = kind.objects.filter(user_id=user_id)
    some = list(rows.order_by("character_id").values_list("character_id", flat=True)[:BATCH])
    with transaction.atomic():
        # In one order for everybody, as the counters' triggers will lock them again.
        locked = Character.objects.filter(pk__in=some).order_by("id")
        list(locked.select_for_update(no_key=True).values_list("pk"))
        rows.filter(character_id__in=some).delete()
    return bool(some)
