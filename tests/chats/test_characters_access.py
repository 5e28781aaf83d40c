"""Who may do what with a character, and what nobody can set."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.forms.models import model_to_dict

from chats.characters.models import (
    AvatarModel,
    Capability,
    Character,
    Cover,
    Like,
    Prompt,
    Translation,
)
from tests.chats.test_characters_api import URL, Caller
from tests.factories import characters as make

pytestmark = pytest.mark.django_db
MISSING = "x" * 21
ROUTES = {
    "POST ": make.body(), "GET ": None, "GET /{id}": None, "PATCH /{id}": {"version": "2"},
    "DELETE /{id}": None, "POST /{id}/like": None, "POST /{id}/bookmark": None,
}  # fmt: skip
OWNER = dict(zip(ROUTES, (201, 200, 200, 200, 204, 200, 200), strict=True))
OTHER = {**OWNER, "PATCH /{id}": 403, "DELETE /{id}": 403}
GONE = {route: 404 if "{id}" in route else OWNER[route] for route in ROUTES}
SETTABLE = {
    "version", "coverUrl", "avatarUrl", "creatorRole", "priceCredit", "characterId",
}  # fmt: skip


@pytest.fixture
def people(client):
    return {
        "owner": Caller(client),
        "other": Caller(client),
        "anonymous": Caller(client, is_anonymous=True),
    }


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def names(model):
    """Return the model's columns as a client could spell them."""
    fields = model._meta.get_fields()
    columns = {column for f in fields for column in (f.name, getattr(f, "attname", f.name))}
    return columns | {camel(column) for column in columns}


def attack(model):
    return dict.fromkeys(names(model) - SETTABLE, "intruder")


@pytest.mark.parametrize("route", ROUTES)
class TestMatrix:
    """Case 137, for everybody and every route."""

    @pytest.mark.parametrize(
        ("who", "expected"),
        [("owner", OWNER), ("other", OTHER), ("anonymous", dict.fromkeys(ROUTES, 401))],
    )
    def test_of_a_live_character(self, people, route, who, expected):
        character = make.character(owner=people["owner"].id)
        before = model_to_dict(character)
        method, path = route.split(" ")

        people[who](method, path.replace("{id}", character.pk), ROUTES[route])

        assert people[who].status == expected[route]
        if expected[route] >= 400:
            assert model_to_dict(Character.objects.get()) == before

    @pytest.mark.parametrize("who", ["owner", "other"])
    @pytest.mark.parametrize("kind", ["deleted", "missing", "malformed"])
    def test_of_one_that_is_not_there(self, people, route, who, kind):
        character = make.character(owner=people["owner"].id)
        people["owner"]("DELETE", f"/{character.pk}")
        there = {"deleted": character.pk, "missing": MISSING, "malformed": "a%00b"}[kind]
        method, path = route.split(" ")

        people[who](method, path.replace("{id}", there), ROUTES[route])

        assert people[who].status == GONE[route]
        assert Like.objects.count() == 0

    def test_is_complete(self, route):
        from airi_server.api import api

        served = {
            f"{method.upper()} {path.removeprefix(URL)}"
            for path, operations in api.get_openapi_schema()["paths"].items()
            if path.startswith(URL)
            for method in operations
        }
        assert served == set(ROUTES)


class TestDeleted:
    def test_is_invisible_and_keeps_its_parts(self, people):
        owner, other = people["owner"], people["other"]
        character = make.character(owner=owner.id)

        assert owner("DELETE", f"/{character.pk}") is None
        assert (owner.status, owner.answer.content) == (204, b"")
        assert (owner("GET"), other("GET", "?all=true")) == ([], [])
        assert Translation.objects.filter(character=character).count() == 2


class TestAssignment:
    """Whatever a client sends: only what is documented can be set."""

    def test_when_making(self, people):
        owner = people["owner"]
        body: dict[str, Any] = {**attack(Character), **make.body()}
        body["character"] = {**attack(Character), **body["character"]}
        body["i18n"] = [{**attack(Translation), **body["i18n"][0], "tagline": "t"}]
        body["prompts"] = [{**attack(Prompt), **body["prompts"][0]}]
        body["cover"] = {**attack(Cover), **body["cover"]}
        body["avatarModels"] = [{**attack(AvatarModel), **body["avatarModels"][0]}]
        body["capabilities"] = [{**attack(Capability), **body["capabilities"][0]}]

        shown = owner("POST", body=body)

        assert owner.status == 201
        assert "intruder" not in json.dumps(shown)
        for model in (Character, Translation, Prompt, Cover, AvatarModel, Capability):
            (row,) = model.objects.values()
            assert "intruder" not in str(row)
        stored = Character.objects.get()
        assert (stored.owner_id, stored.likes_count, stored.deleted_at) == (owner.id, 0, None)
        assert stored.created_at.date() == datetime.now(UTC).date()

    @pytest.mark.parametrize("name", sorted(names(Character) - SETTABLE))
    @pytest.mark.parametrize("value", [7, "intruder", None, "2030-01-01T00:00:00Z"])
    def test_when_changing(self, people, name, value):
        owner = people["owner"]
        character = make.character(owner=owner.id)
        before = Character.objects.filter(pk=character.pk).values().get()
        parts = ("capabilities", "avatarModels", "i18n", "prompts", "cover")

        owner("PATCH", f"/{character.pk}", {name: value, "character": {name: value}})

        assert owner.status == (400 if name in parts and (name, value) != ("cover", None) else 200)
        after = Character.objects.filter(pk=character.pk).values().get()
        assert {**after, "updated_at": None} == {**before, "updated_at": None}
        assert Translation.objects.filter(character=character).count() == 2
