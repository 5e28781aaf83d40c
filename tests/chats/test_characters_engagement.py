from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from django.db import connections

from chats.characters import characters, deletion, engagement, portraits
from chats.characters.models import Bookmark, Character, Like
from chats.characters.ownership import CharacterNotFound
from tests.factories import characters as make

KINDS: list[Any] = [
    (engagement.toggle_like, Like, "likes_count"),
    (engagement.toggle_bookmark, Bookmark, "bookmarks_count"),
]
by_kind = pytest.mark.parametrize(("toggle", "kind", "counter"), KINDS)


def assert_counts_are_rows():
    for _, kind, counter in KINDS:
        rows: Counter[str] = Counter(kind.objects.values_list("character_id", flat=True))
        for character in Character.objects.all():
            assert getattr(character, counter) == rows[character.pk]


def at_once(acts):
    """Run everything in eight threads and return the results; the first failure is raised."""

    def run(act):
        try:
            return act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(run, acts))


@pytest.mark.django_db(transaction=True)
class TestTogether:
    @by_kind
    def test_one_user_twice_at_once_undoes_it(self, toggle, kind, counter):
        character = make.character()

        def act():
            return toggle(caller="mio", character_id=character.pk, at=make.NOW)[1]

        for _ in range(10):
            assert sorted(at_once([act, act])) == [False, True]
        assert kind.objects.count() == 0
        assert_counts_are_rows()

    def test_counters_are_the_rows_whatever_happens_at_once(self):
        random = Random(7)
        made = [make.character(owner=owner).pk for owner in ("ria", "ada", "mio")]
        people = [f"user-{n}" for n in range(4)] + ["ria"]

        def step():
            who, which = random.choice(people), random.choice(made)
            toggle = random.choice(KINDS)[0]

            def act():
                if random.random() < 0.1:
                    deletion.delete_user_data(user_id=who, at=make.NOW)
                else:
                    try:
                        toggle(caller=who, character_id=which, at=make.NOW)
                    except CharacterNotFound:
                        assert which == made[0]

            return act

        # So many that nobody waits for a row longer than a lock may take, on a busy machine too.
        at_once([step() for _ in range(100)])

        assert Like.objects.count() + Bookmark.objects.count() > 0
        assert_counts_are_rows()


@pytest.mark.django_db
class TestCounters:
    @by_kind
    def test_follow_rows_that_anybody_writes(self, toggle, kind, counter):
        one, other = make.character(), make.character()
        for user in ("ria", "mio", "ada"):
            kind.objects.create(user_id=user, character=one, created_at=make.NOW)
        assert_counts_are_rows()
        kind.objects.filter(user_id="mio").update(character=other)
        assert_counts_are_rows()
        kind.objects.filter(character=one).delete()
        assert_counts_are_rows()

        one.refresh_from_db()
        other.refresh_from_db()
        assert (getattr(one, counter), getattr(other, counter)) == (0, 1)

    @by_kind
    def test_are_not_of_the_other_kind(self, toggle, kind, counter):
        character = make.character()

        portrait, _ = toggle(caller="mio", character_id=character.pk, at=make.NOW)

        counts = (portrait.character.likes_count, portrait.character.bookmarks_count)
        assert sum(counts) == 1
        assert getattr(portrait.character, counter) == 1

    @by_kind
    def test_stay_when_the_character_is_changed(self, toggle, kind, counter):
        stale = make.character()
        toggle(caller="mio", character_id=stale.pk, at=make.NOW)

        characters.change(
            caller="ria",
            character_id=stale.pk,
            at=make.NOW,
            fields={"version": "2"},
            given={},
        )

        assert_counts_are_rows()

    @by_kind
    @pytest.mark.parametrize("there", ["nobody", "", "a b", "\0", "x" * 65])
    def test_of_a_character_that_is_not_there(self, toggle, kind, counter, there):
        with pytest.raises(CharacterNotFound):
            toggle(caller="mio", character_id=there, at=make.NOW)


@pytest.mark.django_db
class TestShown:
    @by_kind
    def test_are_the_latest_and_always_the_callers(self, monkeypatch, toggle, kind, counter):
        monkeypatch.setattr(portraits, "MAX_SHOWN", 3)
        character, quiet = make.character(), make.character()
        for n, user in enumerate(("mio", "u1", "u2", "u3", "u4")):
            at = make.NOW + timedelta(minutes=n)
            toggle(caller=user, character_id=character.pk, at=at)

        def shown(caller):
            (portrait, other) = portraits.of([character, quiet], caller=caller, is_whole=False)
            assert (other.likes, other.bookmarks) == ([], [])
            return [one.user_id for one in (*portrait.likes, *portrait.bookmarks)]

        assert shown("mio") == ["u4", "u3", "u2", "mio"]
        assert shown("u3") == shown("stranger") == ["u4", "u3", "u2"]
        assert getattr(Character.objects.get(pk=character.pk), counter) == 5
