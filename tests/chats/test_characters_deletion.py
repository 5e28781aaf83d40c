from collections import Counter
from datetime import timedelta

import pytest

from chats.characters import characters, deletion, engagement
from chats.characters.models import Bookmark, Capability, Character, Like
from tests.factories import characters as make

pytestmark = pytest.mark.django_db
LATER = make.NOW + timedelta(hours=1)
LATEST = make.NOW + timedelta(hours=2)


def engage(who, character):
    engagement.toggle_like(caller=who, character_id=character.pk, at=make.NOW)
    engagement.toggle_bookmark(caller=who, character_id=character.pk, at=make.NOW)


def counts():
    return dict(Character.objects.values_list("pk", "likes_count"))


class TestDeleteUserData:
    def test_hides_what_they_own_or_made(self):
        own, given_away, foreign = make.character(), make.character(), make.character(owner="mio")
        Character.objects.filter(pk=given_away.pk).update(owner_id="mio")

        deletion.delete_user_data(user_id="ria", at=LATER)

        left = characters.listed(caller="mio", of_everybody=True)
        assert [portrait.character.pk for portrait in left] == [foreign.pk]
        hidden = Character.objects.filter(deleted_at=LATER, updated_at=LATER)
        assert set(hidden.values_list("pk", flat=True)) == {own.pk, given_away.pk}

    def test_erases_keys_also_of_what_was_deleted_before(self):
        gone, own, foreign = make.character(), make.character(), make.character(owner="mio")
        characters.delete(caller="ria", character_id=gone.pk, at=LATER)
        assert Capability.objects.filter(character=gone).exists()

        deletion.delete_user_data(user_id="ria", at=LATER)

        assert [c.character_id for c in Capability.objects.all()] == [foreign.pk]
        assert Character.objects.get(pk=own.pk).deleted_at == LATER

    def test_takes_likes_and_bookmarks_out_of_the_counters(self):
        foreign, own = make.character(owner="mio"), make.character()
        for who in ("ria", "mio", "ada"):
            engage(who, foreign)
            engage(who, own)

        deletion.delete_user_data(user_id="ria", at=LATER)

        assert not Like.objects.filter(user_id="ria").exists()
        assert not Bookmark.objects.filter(user_id="ria").exists()
        assert counts() == {foreign.pk: 2, own.pk: 2}
        assert Character.objects.get(pk=foreign.pk).bookmarks_count == 2

    def test_again_changes_nothing(self):
        foreign = make.character(owner="mio")
        make.character()
        engage("ria", foreign)
        deletion.delete_user_data(user_id="ria", at=LATER)
        before = list(Character.objects.order_by("pk").values())

        deletion.delete_user_data(user_id="ria", at=LATEST)
        deletion.delete_user_data(user_id="nobody", at=LATEST)

        assert list(Character.objects.order_by("pk").values()) == before

    def test_works_in_batches_and_goes_on_where_it_was(self, monkeypatch):
        monkeypatch.setattr(deletion, "BATCH", 2)
        foreign = [make.character(owner="mio") for _ in range(5)]
        for character in foreign:
            engage("ria", character)
        for _ in range(5):
            make.character()
        assert deletion._deleted_some_characters("ria", LATER)
        assert deletion._removed_some(Like, "ria")

        deletion.delete_user_data(user_id="ria", at=LATEST)

        own = Character.objects.filter(owner_id="ria")
        assert Counter(own.values_list("deleted_at", flat=True)) == {LATER: 2, LATEST: 3}
        assert set(counts().values()) == {0}
