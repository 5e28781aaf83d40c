"""Requests that nobody's client sends, to every route of chats, characters and tickets."""

from __future__ import annotations

import json
import logging

import pytest

from airi_server.api import api
from chats.characters.models import Character
from chats.models import Chat, ChatMember
from tests.factories import accounts
from tests.factories import characters as make_character
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
ROOTS = ("/api/v1/chats", "/api/v1/characters", "/api/v1/ws-tickets")
ROUTES = sorted(
    (method.upper(), path)
    for path, operations in api.get_openapi_schema()["paths"].items()
    if path.startswith(ROOTS)
    for method in operations
)
WITHOUT_BODY = ("/like", "/bookmark", "/ws-tickets")
WITH_BODY = [
    (method, path)
    for method, path in ROUTES
    if method in ("POST", "PATCH") and not path.endswith(WITHOUT_BODY)
]
WITH_ID = [route for route in ROUTES if "{" in route[1]]
DEEP = "[" * 100_000
BODIES = [
    DEEP, DEEP + "]" * 100_000, '{"a":' * 100_000, '{"title": ' + DEEP,
    "\x00", "{", "[]", "7", "null",
    '"\\ud800"', '{"\\ud800": 1}', '{"id": "\\ud800", "version": "\\ud800"}',
    '{"id": "a\\u0000b", "title": "a\\u0000b", "version": "a\\u0000b", "role": "\\u0000"}',
    '{"title": NaN, "version": Infinity, "role": -Infinity, "type": NaN}',
    '{"title": 1e999, "version": 1e999, "type": 1e999, "role": 1e999}',
    '{"title": ' + "9" * 5_000 + ', "version": ' + "9" * 5_000 + ', "role": 1}',
    '{"members": {}, "title": [], "version": [], "type": [], "role": []}',
    '{"members": [[]], "character": [], "i18n": {}, "title": {}, "type": {}, "role": {}}',
    b"\xff\xfe{}", b'{"title": "\xff", "version": "\xff", "type": "\xff", "role": "\xff"}',
]  # fmt: skip
IDS = [
    "%00",
    "a%00b",
    "%ed%a0%80",
    "%ff",
    "x" * 65,
    "%2e%2e",
    "a%0a",
    "%F0%9F%98%80",
    "*",
    "'%22;--",
]


@pytest.fixture(autouse=True)
def log(caplog):
    """Nothing a client sends is an error of ours."""
    yield caplog
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR or r.exc_info] == []


@pytest.fixture
def call(client):
    owner = accounts.user()
    token = accounts.api_key(owner=owner)[1]
    chat = make.chat("mio", owner=owner.pk)
    there = {
        "chats": chat.pk,
        "characters": make_character.character(owner=owner.pk).pk,
        "member_id": make.member(chat, "mio").pk,
    }

    def call(method, path, body=b"", query="", *, wrong=None):
        """Call a route with ids that are there, or the last of them wrong."""
        noun = path.split("/")[3]
        ids = {"id": there.get(noun, ""), "member_id": there["member_id"]}
        if wrong is not None:
            ids["member_id" if "member_id" in path else "id"] = wrong
        headers = {"authorization": f"Bearer {token}"}
        url = path.format(**ids) + query
        return client.generic(method, url, body, "application/json", headers=headers)

    return call


def everything():
    return [list(table.objects.order_by("pk").values()) for table in (Chat, ChatMember, Character)]


@pytest.mark.parametrize("number", range(len(BODIES)))
@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_with_a_body_that_is_wrong_are_refused_and_change_nothing(call, method, path, number):
    before = everything()

    answer = call(method, path, BODIES[number])

    assert answer.status_code == 400, answer.content
    assert answer.json()["error"] == "INVALID_REQUEST"
    assert everything() == before


@pytest.mark.parametrize("wrong", IDS)
@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_with_an_id_that_cannot_be_are_404(call, method, path, wrong):
    body = json.dumps({"type": "user", "userId": "zoe", "role": "admin", "title": "t"})

    answer = call(method, path, body if method != "GET" else b"", wrong=wrong)

    assert answer.status_code == 404, answer.content


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=1e30", "limit=NaN", "limit=" + "9" * 5_000, "limit=1.5", "limit=%00",
     "cursor=%00", "cursor=%ed%a0%80", "cursor=" + "x" * 70_000, "cursor=%ff", "limit[]=1&limit=0"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/chats", "/api/v1/characters"])
def test_with_a_query_that_is_wrong_are_refused(call, path, query):
    answer = call("GET", path, query="?" + query)

    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")
