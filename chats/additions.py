"""Rules of adding members: who may put whom into a chat, and how often (ADR 0030).

Somebody knows those who are with them in a live chat in which they have taken part: that they own,
came to by themselves, or have sent something to. Everybody else is a stranger to them, and that a
stranger has put them into a chat makes nobody known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import connection

from airi_server.kernel import resources
from airi_server.kernel.errors import Forbidden, TooManyRequests
from chats import options, telemetry
from chats.models import ChatAddition, ChatMember

COUNT_ADDITIONS_SQL: Final = resources.read_text("chats", "sql/count_additions.sql")
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BY_THEM: Final = ChatAddition.Kind.BY_THEM
BY_STRANGERS: Final = ChatAddition.Kind.BY_STRANGERS


class StrangersKeptOut(Forbidden):
    """On this server strangers put nobody into a chat."""


class TooManyAdditions(TooManyRequests):
    """The caller has put many people into chats lately, or strangers have put somebody."""


def count(*, caller: str, user_ids: Collection[str], at: datetime) -> None:
    """Count people whom a caller puts into a chat, in the transaction that does it.

    A limit that is used up refuses the next call; the one before may have brought more people than
    were left. What is refused is rolled back with the transaction, and was not counted.

    Raises:
        StrangersKeptOut: Somebody does not know the caller, and this server wants them to.
        TooManyAdditions: A limit is used up; `retry_after_s` says until when.
    """
    if not user_ids:
        return
    strangers = sorted(set(user_ids) - _who_know(caller, user_ids))
    if strangers and not options.CHAT_STRANGERS.read():
        telemetry.addition_refused("stranger")
        raise StrangersKeptOut(
            "This user has taken part in no chat that you are in.", details={"userId": strangers[0]}
        )
    before = _count(caller, len(set(user_ids)), strangers, at)
    _ensure_slow(before[BY_THEM, caller], at)
    if strangers:
        _ensure_spared({user_id: before[BY_STRANGERS, user_id] for user_id in strangers}, at)


def _ensure_slow(before: int, at: datetime) -> None:
    limit = options.CHAT_ADDITIONS_PER_MINUTE.read()
    if limit and before >= limit:
        telemetry.addition_refused("minute")
        raise TooManyAdditions(
            f"At most {limit:,} people can be put into chats in a minute.",
            retry_after_s=_left(at, MINUTE),
        )


def _ensure_spared(before: Mapping[str, int], at: datetime) -> None:
    limit = options.CHAT_ADDITIONS_BY_STRANGERS_PER_DAY.read()
    used_up = [user_id for user_id, times in before.items() if limit and times >= limit]
    if used_up:
        telemetry.addition_refused("day")
        raise TooManyAdditions(
            "Strangers have put this user into many chats today.",
            details={"userId": used_up[0]},
            retry_after_s=_left(at, DAY),
        )


def _who_know(caller: str, user_ids: Collection[str]) -> set[str]:
    """Return those who have taken part in a live chat in which the caller is."""
    theirs = ChatMember.objects.filter(user_id__in=set(user_ids), is_silent=False)
    shared = theirs.filter(chat__deleted_at__isnull=True, chat__members__user_id=caller)
    return {str(user_id) for user_id in shared.values_list("user_id", flat=True).distinct()}


def _count(
    caller: str, people: int, strangers: Collection[str], at: datetime
) -> dict[tuple[str, str], int]:
    """Run `count_additions.sql`; return what each limit had counted in its window before."""
    counts = [
        (BY_THEM.value, caller, _begin(at, MINUTE), people),
        *((BY_STRANGERS.value, stranger, _begin(at, DAY), 1) for stranger in strangers),
    ]
    kinds, user_ids, begins, added = (list(column) for column in zip(*counts, strict=True))
    params = {"kinds": kinds, "user_ids": user_ids, "begins": begins, "people": added}
    with connection.cursor() as cursor:
        cursor.execute(COUNT_ADDITIONS_SQL, params)
        after = {(kind, user_id): total for kind, user_id, total in cursor.fetchall()}
    return {(kind, user_id): after[kind, user_id] - now for kind, user_id, _, now in counts}


def _begin(at: datetime, window: timedelta) -> datetime:
    return at - (at - EPOCH) % window


def _left(at: datetime, window: timedelta) -> int:
    return math.ceil((_begin(at, window) + window - at).total_seconds())
