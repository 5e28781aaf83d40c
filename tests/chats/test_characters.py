from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from airi_server.kernel.errors import InvalidRequest
from chats.characters import characters, children
from chats.characters.characters import TooManyCharacters
from chats.characters.models import (
    AvatarModel,
    Bookmark,
    Capability,
    Character,
    Like,
    Prompt,
    Translation,
)
from tests.factories import characters as make

pytestmark = pytest.mark.django_db
LATER = make.NOW + timedelta(hours=1)


def listed(**more):
    return characters.listed(**{"caller": "ria", "of_everybody": False, **more})


def statements(act):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        act()
    return len(captured)


class TestCreate:
    def test_is_all_or_nothing(self, monkeypatch):
        monkeypatch.setattr(Prompt.objects, "bulk_create", None)
        given: Any = {"i18n": [], "prompts": []}
        fields: Any = {"version": "1", "cover_url": "", "character_id": "c"}
        with pytest.raises(TypeError):
            characters.create(caller="ria", at=make.NOW, fields=fields, given=given)

        assert Character.objects.count() == 0

    def test_refuses_one_too_many(self, monkeypatch):
        monkeypatch.setattr(characters, "MAX_PER_USER", 2)
        gone = make.character()
        characters.delete(caller="ria", character_id=gone.pk, at=LATER)
        make.character()
        make.character()
        make.character(owner="mio")

        with pytest.raises(TooManyCharacters):
            make.character()


class TestListed:
    def test_is_newest_first(self):
        old, new = (make.character(at=make.NOW + timedelta(hours=h)) for h in range(2))

        assert [one.character.pk for one in listed()] == [new.pk, old.pk]

    @pytest.mark.parametrize("of_everybody", [False, True])
    def test_pages_show_each_once_also_at_the_same_instant(self, of_everybody):
        made = {make.character(at=make.NOW + timedelta(hours=n // 3)).pk for n in range(10)}
        pages, cursor = [], None
        while page := listed(limit=4, cursor=cursor, of_everybody=of_everybody):
            pages.append([one.character.pk for one in page])
            cursor = pages[-1][-1]
            # A cursor may be deleted once it was given out.
            if not of_everybody:
                characters.delete(caller="ria", character_id=cursor, at=LATER)

        assert [len(page) for page in pages] == [4, 4, 2]
        assert {pk for page in pages for pk in page} == made

    def test_stops_at_five_hundred(self, monkeypatch):
        monkeypatch.setattr(characters, "MAX_LISTED", 2)
        for _ in range(3):
            make.character()

        assert len(listed()) == len(listed(limit=9)) == 2

    def test_refuses_a_cursor_that_it_cannot_have_shown(self):
        foreign = make.character(owner="mio")

        for cursor in ("", "x", "a b", "\0", foreign.pk):
            with pytest.raises(InvalidRequest):
                listed(cursor=cursor)
        assert listed(cursor=foreign.pk, of_everybody=True) == []

    def test_of_two_hundred_takes_as_many_statements_as_of_one(self):
        """Characters, covers, translations, capabilities, and one for likes and bookmarks."""
        first = make.character()
        assert statements(listed) == 5
        columns = {"version": "1", "cover_url": "", "character_id": "c", "owner_id": "ria"}
        dated = {"created_at": make.NOW, "updated_at": make.NOW}
        many = Character.objects.bulk_create(
            Character(creator_id="ria", **columns, **dated) for _ in range(199)
        )
        Like.objects.bulk_create(
            Like(user_id="mio", character=one, created_at=make.NOW) for one in [first, *many]
        )
        assert len(listed()) == 200
        assert statements(listed) == 5
        assert statements(lambda: listed(of_everybody=True)) == 5
        assert statements(lambda: characters.details(caller="mio", character_id=first.pk)) == 7


class TestChange:
    def test_takes_a_bounded_number_of_statements(self):
        character = make.character()
        given: Any = {"i18n": [{"language": "en", "name": "", "description": "", "tags": []}] * 20}

        def change():
            characters.change(
                caller="ria", character_id=character.pk, at=LATER, fields={}, given=given
            )

        assert statements(change) <= 14


def refuses(constraint, act):
    with pytest.raises((IntegrityError, DatabaseError)) as refused, transaction.atomic():
        act()
    assert constraint in str(refused.value)


class TestConstraints:
    @pytest.mark.parametrize(
        ("constraint", "model", "columns"),
        [
            ("character_people_shape", Character, {"owner_id": "a b"}),
            ("character_people_shape", Character, {"creator_id": ""}),
            ("character_counts_not_negative", Character, {"likes_count": -1}),
            ("character_counts_not_negative", Character, {"bookmarks_count": -1}),
            ("character_counts_not_negative", Character, {"interactions_count": -1}),
            ("character_counts_not_negative", Character, {"forks_count": -1}),
            ("character_capability_type_known", Capability, {"type": "x"}),
            ("character_capability_config_is_sealed", Capability, {"sealed_config": "{}"}),
            ("character_avatar_model_type_known", AvatarModel, {"type": "glb"}),
            ("character_i18n_tags_are_few", Translation, {"tags": ["t"] * 51}),
            ("character_i18n_position_uniq", Translation, {"position": 0}),
            ("character_prompt_type_known", Prompt, {"type": "x"}),
            ("character_prompt_position_not_negative", Prompt, {"position": -1}),
            ("character_avatar_model_position_not_negative", AvatarModel, {"position": -1}),
            ("character_i18n_position_not_negative", Translation, {"position": -1}),
            ("character_capability_position_not_negative", Capability, {"position": -1}),
            ("character_like_user_id_shape", Like, {"user_id": "a b"}),
            ("character_bookmark_user_id_shape", Bookmark, {"user_id": "a b"}),
        ],
    )
    def test_refuse(self, constraint, model, columns):
        character = make.character()
        by_ria = {"user_id": "ria", "character": character, "created_at": make.NOW}
        Like.objects.create(**by_ria)
        Bookmark.objects.create(**by_ria)
        given: Any = {
            "avatar_models": [{"name": "", "type": "vrm", "description": "", "config": {}}],
            "prompts": [{"language": "en", "type": "system", "content": ""}],
        }
        children.replace(character, given, at=make.NOW)

        refuses(constraint, lambda: model.objects.update(**columns))

    @pytest.mark.parametrize("kind", [Like, Bookmark])
    def test_a_user_likes_and_keeps_once(self, kind):
        row = {"user_id": "ria", "character": make.character(), "created_at": make.NOW}
        kind.objects.create(**row)

        refuses("_once", lambda: kind.objects.create(**row))
