"""`/api/v1/characters` as clients see it: contract §8.1, cases 135 to 137."""

import json
from typing import Any

import pytest

from airi_server.api import api
from chats.characters.models import Character
from tests.factories import accounts
from tests.factories import characters as make

pytestmark = pytest.mark.django_db
URL = "/api/v1/characters"
MISSING = "x" * 21
REQUIRED = {
    "id", "version", "coverUrl", "priceCredit", "likesCount", "bookmarksCount",
    "interactionsCount", "forksCount", "creatorId", "ownerId", "characterId", "createdAt",
    "updatedAt",
}  # fmt: skip
LISTED = REQUIRED | {"cover", "capabilities", "i18n", "likes", "bookmarks"}
WHOLE = LISTED | {"avatarModels", "prompts"}


class Caller:
    """A user with a key; called, it sends a request and reads the answer."""

    def __init__(self, client, *, is_anonymous=False):
        self.client = client
        self.id, self.headers = "", {}
        if not is_anonymous:
            key, token = accounts.api_key()
            self.id, self.headers = key.user_id, {"authorization": f"Bearer {token}"}

    def __call__(self, method, path="", body=None):
        content = b"" if body is None else json.dumps(body)
        self.answer = self.client.generic(
            method, URL + path, content, "application/json", headers=self.headers
        )
        return self.answer.json() if self.answer.content else None

    @property
    def status(self):
        return self.answer.status_code


@pytest.fixture
def ria(client):
    return Caller(client)


@pytest.fixture
def mio(client):
    return Caller(client)


@pytest.fixture
def path(ria):
    """The path of a character of Ria's with all its parts."""
    return "/" + ria("POST", body=make.body())["id"]


def nulls(shown, where=""):
    """Return the paths of null values at every depth."""
    if isinstance(shown, dict):
        return [p for key, value in shown.items() for p in nulls(value, f"{where}.{key}")]
    if isinstance(shown, list):
        return [p for n, value in enumerate(shown) for p in nulls(value, f"{where}[{n}]")]
    return [where] if shown is None else []


def without_ids(parts):
    hidden = {"id", "characterId", "createdAt", "updatedAt"}
    many = parts if isinstance(parts, list) else [parts]
    return [{k: v for k, v in part.items() if k not in hidden} for part in many]


class TestCreate:
    def test_belongs_to_the_caller_with_everything_given(self, ria):
        """Case 135."""
        shown = ria("POST", body=make.body(avatarUrl="a", creatorRole="artist", priceCredit="5"))

        assert ria.status == 201
        assert shown.keys() == WHOLE | {"avatarUrl", "creatorRole"}
        assert shown["ownerId"] == shown["creatorId"] == ria.id
        assert (shown["avatarUrl"], shown["creatorRole"], shown["priceCredit"]) == (
            "a", "artist", "5",
        )  # fmt: skip
        for name, given in make.PARTS.items():
            assert without_ids(shown[name]) == (given if isinstance(given, list) else [given])
        assert ria("GET", f"/{shown['id']}") == shown

    def test_needs_no_parts(self, ria):
        shown = ria("POST", body={"character": make.FIELDS})

        assert ria.status == 201
        assert shown.keys() == WHOLE - {"cover"}
        assert shown["priceCredit"] == "0"
        assert nulls(shown) == []

    @pytest.mark.parametrize("missing", ["version", "coverUrl", "characterId"])
    def test_needs_what_the_contract_requires(self, ria, missing):
        fields = {name: text for name, text in make.FIELDS.items() if name != missing}

        assert ria("POST", body={"character": fields})["error"] == "INVALID_REQUEST"
        assert ria.status == 400

    def test_stores_nothing_when_a_part_is_refused(self, ria):
        ria("POST", body={**make.body(), "prompts": [{"language": "en", "type": "x"}]})

        assert (ria.status, Character.objects.count()) == (400, 0)


class TestNulls:
    def test_are_nowhere(self, ria, mio):
        """Case 135a."""
        made = ria("POST", body={**make.body(), "cover": None})
        path = f"/{made['id']}"
        answers = [
            made,
            ria("GET", path),
            ria("GET"),
            mio("GET", "?all=true"),
            ria("PATCH", path, {"version": "2", "avatarUrl": None, "creatorRole": None}),
            ria("POST", f"{path}/like"),
            ria("POST", f"{path}/bookmark"),
        ]

        assert [nulls(answer) for answer in answers] == [[]] * 7
        assert not {"avatarUrl", "creatorRole", "deletedAt", "cover"} & made.keys()
        assert "tagline" not in made["i18n"][0]
        assert made["i18n"][1]["tagline"] == "t"


class TestList:
    def test_is_ones_own_or_everybodys(self, ria, mio, path):
        mine = mio("POST", body={"character": make.FIELDS})

        assert [one["id"] for one in mio("GET")] == [mine["id"]]
        assert [one["id"] for one in mio("GET", "?all=false")] == [mine["id"]]
        everybody = mio("GET", "?all=true")
        assert [one["id"] for one in everybody] == [mine["id"], path[1:]]
        assert everybody[1].keys() == LISTED
        assert [one["language"] for one in everybody[1]["i18n"]] == ["en", "ja"]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=501", "limit=x", "all=maybe", "cursor=%00"]
    )
    def test_refuses(self, ria, query):
        ria("GET", f"?{query}")

        assert ria.status == 400


class TestChange:
    def test_answers_one_whole_character(self, ria, path):
        before = ria("GET", path)

        shown = ria("PATCH", path, {"version": "2"})

        assert ria.status == 200
        assert shown.pop("updatedAt") > before.pop("updatedAt")
        assert shown == {**before, "version": "2"}

    def test_of_each_field_and_each_part(self, ria, path):
        fields = {
            "version": "2", "coverUrl": "c", "avatarUrl": "a", "creatorRole": "r",
            "priceCredit": "9", "characterId": "other",
        }  # fmt: skip
        parts = {
            "cover": {"foregroundUrl": "f", "backgroundUrl": "b"},
            "capabilities": [
                {"type": "asr", "config": {"apiKey": "n", "apiBaseUrl": "", "asr": {"audio": ""}}}
            ],
            "avatarModels": [],
            "i18n": [{"language": "de", "name": "n", "description": "d", "tags": ["x"]}],
            "prompts": [{"language": "de", "type": "personality", "content": "c"}],
        }

        shown = ria("PATCH", path, {**fields, **parts})

        assert {name: shown[name] for name in fields} == fields
        for name, given in parts.items():
            assert without_ids(shown[name]) == (given if isinstance(given, list) else [given])
        assert ria("GET", path) == shown

    def test_removes_what_is_null(self, ria, path):
        ria("PATCH", path, {"avatarUrl": "a", "creatorRole": "r"})

        shown = ria("PATCH", path, {"avatarUrl": None, "creatorRole": None, "cover": None})

        assert shown.keys() == WHOLE - {"cover"}

    @pytest.mark.parametrize("name", [*make.FIELDS, "priceCredit", "i18n", "prompts"])
    def test_refuses_null_where_there_must_be_something(self, ria, path, name):
        ria("PATCH", path, {name: None})

        assert ria.status == 400

    def test_takes_back_a_whole_character_as_it_was_sent(self, ria, path):
        before = ria("GET", path)

        shown = ria("PATCH", path, before)

        for name in make.PARTS:
            assert without_ids(shown[name]) == without_ids(before[name])
        assert {name: shown[name] for name in REQUIRED - {"updatedAt"}} == {
            name: before[name] for name in REQUIRED - {"updatedAt"}
        }


class TestEngagement:
    @pytest.mark.parametrize(
        ("verb", "names"),
        [
            ("like", ("liked", "likesCount", "likes")),
            ("bookmark", ("bookmarked", "bookmarksCount", "bookmarks")),
        ],
    )
    def test_toggles(self, ria, mio, path, verb, names):
        """Cases 135b and 136."""
        flag, counter, rows = names
        before = mio("GET", path)

        on = mio("POST", f"{path}/{verb}")
        assert mio.status == 200
        assert (on.pop(flag), on[counter], len(on[rows])) == (True, 1, 1)
        assert (on[rows][0]["userId"], on[rows][0]["characterId"]) == (mio.id, path[1:])
        assert on == {**before, counter: 1, rows: on[rows]}

        assert ria("GET", path)[rows] == on[rows]
        off = mio("POST", f"{path}/{verb}")
        assert (off.pop(flag), off) == (False, before)


class TestBounds:
    @pytest.mark.parametrize(
        ("field", "most"),
        [("version", 64), ("coverUrl", 2048), ("avatarUrl", 2048), ("creatorRole", 200),
         ("priceCredit", 32), ("characterId", 200)],
    )  # fmt: skip
    def test_of_fields(self, ria, path, field, most):
        ria("PATCH", path, {field: "é" * most})
        assert ria.status == 200
        bads: tuple[Any, ...] = ("x" * (most + 1), "a\0b", 7, ["x"], {})
        for bad in bads:
            ria("PATCH", path, {field: bad})
            assert ria.status == 400, bad

    @pytest.mark.parametrize("part", ["capabilities", "avatarModels", "i18n", "prompts"])
    def test_of_lists(self, ria, path, part):
        shape = api.get_openapi_schema()["components"]["schemas"]["CharacterPatch"]
        most = shape["properties"][part]["maxItems"]
        one = make.PARTS[part][0]
        ria("PATCH", path, {part: [one] * most})
        assert ria.status == 200
        ria("PATCH", path, {part: [one] * (most + 1)})
        assert ria.status == 400

    @pytest.mark.parametrize(
        ("part", "change"),
        [("capabilities", {"type": "x"}), ("capabilities", {"config": None}),
         ("capabilities", {"config": {"apiKey": "x" * 4097, "apiBaseUrl": ""}}),
         ("capabilities", {"config": {"llm": {"temperature": 1001, "model": ""}}}),
         ("capabilities", {"config": {"llm": {"temperature": True, "model": ""}}}),
         ("avatarModels", {"type": "glb"}),
         ("avatarModels", {"config": {"vrm": {"urls": ["u"] * 101}}}),
         ("avatarModels", {"description": "x" * 4001}),
         ("i18n", {"tags": ["t"] * 51}), ("i18n", {"tags": ["t" * 65]}), ("i18n", {"name": "\0"}),
         ("i18n", {"description": "x" * 4001}), ("i18n", {"language": "x" * 36}),
         ("prompts", {"type": "x"}), ("prompts", {"content": "x" * 65_537})],
    )  # fmt: skip
    def test_of_parts(self, ria, path, part, change):
        ria("PATCH", path, {part: [{**make.PARTS[part][0], **change}]})

        assert ria.status == 400
        assert without_ids(ria("GET", path)[part]) == make.PARTS[part]
