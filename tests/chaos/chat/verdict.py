"""What must be true at the end; each function returns the sentences that say what is not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.chaos.chat.replica import Replica, Row
from tests.chaos.chat.witness import Truth


@dataclass(slots=True)
class Said:
    """What one client knows of a message of its own.

    Attributes:
        contents: What it has ever sent under this id, in order.
        is_acknowledged: Whether any of it was answered.
        is_unsure: Whether it was ever sent again, so that an old try may come late.
        may_be_deleted: Whether anybody has asked for that.
    """

    chat_id: str
    contents: list[str] = field(default_factory=list)
    is_acknowledged: bool = False
    is_unsure: bool = False
    may_be_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Absence:
    """How far a client had come with a chat when it was let in again, after so many departures."""

    client: str
    chat_id: str
    user_id: str
    highest: int
    departures: int


def of_numbers(truth: Truth) -> Iterator[str]:
    """Numbers were given out one by one, each once."""
    for chat_id, head in truth.heads.items():
        counts = Counter(truth.numbers[chat_id])
        for seq in range(1, head + 1):
            if counts[seq] != 1:
                yield f"{chat_id}: number {seq} was given out {counts[seq]} times"
        if max(counts, default=0) > head:
            yield f"{chat_id}: number {max(counts)} is above the head {head}"
        for seq, rows in Counter(row.seq for row in truth.rows[chat_id].values()).items():
            if rows != 1:
                yield f"{chat_id}: {rows} messages have the number {seq}"


def of_messages(truth: Truth, said: Mapping[str, Said]) -> Iterator[str]:
    """What was acknowledged is there, once and as it was last sent; nothing else is."""
    for chat_id, rows in truth.rows.items():
        for id_ in rows.keys() - said.keys():
            yield f"{chat_id}: nobody has sent {id_}"
    for id_, told in said.items():
        row = truth.rows[told.chat_id].get(id_)
        if row is None:
            if told.is_acknowledged:
                yield f"{told.chat_id}: {id_} was acknowledged and is lost"
        elif row.content is None:
            if not told.may_be_deleted:
                yield f"{told.chat_id}: {id_} was deleted by nobody"
        elif row.content not in (told.contents if told.is_unsure else told.contents[-1:]):
            yield f"{told.chat_id}: {id_} is {row.content!r}, of {told.contents}"


def of_replica(client: str, chat_id: str, replica: Replica, truth: Truth) -> Iterator[str]:
    """A client has exactly the chat's rows, and knows that it has."""
    where, rows = f"{client} in {chat_id}", truth.rows[chat_id]
    for id_ in rows.keys() | replica.rows.keys():
        fault = _difference(rows.get(id_), replica.rows.get(id_))
        if fault:
            yield f"{where}: {id_} {fault}"
    if replica.cursor != truth.heads[chat_id]:
        yield f"{where}: is at {replica.cursor} of {truth.heads[chat_id]}"
    for seq, count in Counter(row.seq for row in replica.rows.values()).items():
        if count != 1:
            yield f"{where}: has {count} messages with the number {seq}"


def of_absence(absence: Absence, truth: Truth) -> Iterator[str]:
    """A client that was out has nothing that was committed while it was."""
    departures = truth.departures[absence.chat_id, absence.user_id]
    if not 0 < absence.departures <= len(departures):
        return  # it is not known when it was out
    left_at = departures[absence.departures - 1]
    if absence.highest > left_at:
        yield (
            f"{absence.client} in {absence.chat_id}: left at {left_at} and was told "
            f"of {absence.highest}"
        )


def _difference(row: Row | None, known: Row | None) -> str:
    if known is None:
        return "is missing"
    if row is None:
        return "is nowhere else"
    if row.seq != known.seq:
        return f"has the number {known.seq}, not {row.seq}"
    return "" if row.told == known.told else f"is {known.told}, not {row.told}"
