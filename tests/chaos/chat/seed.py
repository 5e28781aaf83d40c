"""A dozen people with a key each, and the chats between them. Import this after Django's set-up."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connections

from accounts import keys, users
from chats import rooms
from chats.rooms import Someone
from tests.chaos.chat.client import Person


def people_and_rooms(
    people_count: int, rooms_count: int
) -> tuple[list[Person], list[tuple[str, list[int]]]]:
    """Return people, and for each chat its id and the places of those in it, the owner first."""
    at = datetime.now(UTC)
    people = [_person(number, at) for number in range(people_count)]
    made = []
    for number in range(rooms_count):
        # Overlapping crowds: small chats and one that has nearly everybody.
        size = min(people_count, 3 + 2 * number)
        places = [(2 * number + step) % people_count for step in range(size)]
        others = [Someone("user", people[place].user_id) for place in places[1:]]
        owner = people[places[0]].user_id
        chat = rooms.create(caller=owner, at=at, chat_id=f"room-{number}", members=others)
        made.append((chat.pk, places))
    connections.close_all()
    return people, made


def _person(number: int, at: datetime) -> Person:
    user = users.create(email=f"chaos-{number}@example.com", password=None, verified=True, at=at)
    _, key = keys.create(user_id=user.id, name="Chaos", at=at, requests_per_minute=0)
    return Person(user.id, key)
