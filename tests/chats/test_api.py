from __future__ import annotations

import json
import re

import pytest

from airi_server.runtime import options
from tests.factories import accounts, chats

pytestmark = pytest.mark.django_db
URL = "/api/v1/chats"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def ria():
    return accounts.user()


@pytest.fixture
def key(ria):
    return accounts.api_key(owner=ria)[1]


@pytest.fixture
def call(client, key):
    """Call as Ria, or with the key that is given."""

    def call(method, path="", body=None, *, token=key):
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return client.generic(method, URL + path, body, "application/json", headers=headers)

    return call


@pytest.fixture
def room(ria):
    return chats.chat("mio", owner=ria.pk, chat_id="c1", title="Talk")


def instants_of(shown, *names):
    """Take the times out of an answer, and see that they are written as clients read them."""
    for name in names:
        assert INSTANT.fullmatch(shown.pop(name)), name
    return shown


class TestCreate:
    def test_answers_what_the_clients_expect(self, call, ria):
        """What the real client sends."""
        body = {"id": "s_-1", "type": "bot",
                "members": [{"type": "character", "characterId": "airi"}]}  # fmt: skip

        answer = call("POST", body=body)

        assert answer.status_code == 201
        assert instants_of(answer.json(), "createdAt", "updatedAt") == {
            "id": "s_-1", "type": "bot", "title": None
        }  # fmt: skip
        members = call("GET", "/s_-1").json()["members"]
        assert {(m["userId"], m["characterId"], m["role"]) for m in members} == {
            (ria.pk, None, "owner"), (None, "airi", "member")
        }  # fmt: skip

    def test_needs_nothing(self, call):
        shown = call("POST", body={}).json()

        assert (shown["type"], shown["title"], len(shown["id"])) == ("group", None, 21)

    def test_skips_the_creator_and_ignores_what_it_does_not_know(self, call, ria):
        body = {"members": [{"type": "user", "userId": ria.pk, "x": 1}], "x": 1}

        shown = call("POST", body=body).json()

        assert len(call("GET", "/" + shown["id"]).json()["members"]) == 1

    def test_refuses_an_id_that_is_taken(self, call, room):
        """Case 131: the client takes 409 as created, and lists again."""
        other = accounts.api_key()[1]
        for body in ({"id": "c1"}, {"id": "c1", "title": "Mine"}):
            assert call("POST", body=body).status_code == 409
            answer = call("POST", body=body, token=other)
            assert (answer.status_code, answer.json()["error"]) == (409, "CONFLICT")

        assert call("GET", "/c1").json()["title"] == "Talk"

    @pytest.mark.parametrize(
        "body",
        [
            {"id": ""}, {"id": "x" * 65}, {"id": "a b"}, {"id": "a\n"}, {"id": 1},
            {"type": "dm"}, {"type": None}, {"title": 1}, {"title": "x" * 201},
            {"title": "a\0b"}, {"members": [{}]}, {"members": None},
            {"members": [{"type": "user"}]},
            {"members": [{"type": "character", "userId": "mio"}]},
            {"members": [{"type": "bot", "characterId": "a/b"}]},
            {"members": [{"type": "user", "userId": "mio"}] * 201},
            '{"title": "\\ud800"}', '{"members": [{"type": "user", "userId": "\\udfff"}]}', "[]",
        ],
    )  # fmt: skip
    def test_refuses_what_is_not_a_chat(self, call, body):
        answer = call("POST", body=body)

        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")
        assert call("GET").json()["chats"] == []


class TestList:
    def test_answers_what_the_clients_expect(self, call, room):
        shown = call("GET").json()

        assert shown["nextCursor"] is None
        assert instants_of(shown["chats"][0], "createdAt", "updatedAt") == {
            "id": "c1", "type": "group", "title": "Talk", "deletedAt": None
        }  # fmt: skip

    def test_pages_by_cursor(self, call):
        made = [call("POST", body={}).json()["id"] for _ in range(3)]

        first = call("GET", "?limit=2").json()
        second = call("GET", f"?limit=2&cursor={first['nextCursor']}").json()

        assert [chat["id"] for chat in first["chats"] + second["chats"]] == made[::-1]
        assert second["nextCursor"] is None

    def test_shows_what_was_changed_last_first(self, call):
        made = [call("POST", body={}).json()["id"] for _ in range(2)]
        call("PATCH", "/" + made[0], {"title": "T"})

        assert [chat["id"] for chat in call("GET").json()["chats"]] == made

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=501", "limit=x", "limit=", "cursor=x", "cursor=%00"]
    )
    def test_refuses_what_it_cannot_read(self, call, query):
        assert call("GET", "?" + query).status_code == 400


class TestOne:
    def test_shows_its_members(self, call, room, ria):
        shown = call("GET", "/c1").json()
        members = shown.pop("members")

        assert instants_of(shown, "createdAt", "updatedAt") == {
            "id": "c1", "type": "group", "title": "Talk", "deletedAt": None
        }  # fmt: skip
        assert {member.pop("id") for member in members} == {
            chats.member(room, user_id).pk for user_id in (ria.pk, "mio")
        }
        assert members == [
            {"chatId": "c1", "memberType": "user", "userId": member["userId"],
             "characterId": None, "role": "owner" if member["userId"] == ria.pk else "member"}
            for member in members
        ]  # fmt: skip

    def test_is_renamed(self, call, room):
        answer = call("PATCH", "/c1", {"title": "Other"})

        assert (answer.status_code, answer.json()["title"]) == (200, "Other")
        assert call("PATCH", "/c1", {"title": ""}).json()["title"] == ""
        assert call("PATCH", "/c1", {}).json()["title"] == ""
        assert call("PATCH", "/c1", {"title": None}).status_code == 400

    def test_is_deleted_once(self, call, room):
        answer = call("DELETE", "/c1")

        assert answer.status_code == 200
        assert INSTANT.fullmatch(answer.json()["deletedAt"])
        assert call("GET").json()["chats"] == []
        again = call("DELETE", "/c1")
        assert (again.status_code, again.json()["message"]) == (404, "Chat not found")


class TestMembers:
    def test_come_change_and_go(self, call, room):
        added = call("POST", "/c1/members", {"type": "user", "userId": "zoe"})
        member = added.json()
        path = f"/c1/members/{member['id']}"

        assert added.status_code == 200
        assert (member["chatId"], member["userId"], member["role"]) == ("c1", "zoe", "member")
        assert call("POST", "/c1/members", {"type": "user", "userId": "zoe"}).json() == member
        assert call("PATCH", path, {"role": "admin"}).json()["role"] == "admin"
        assert call("PATCH", path, {"role": "owner"}).status_code == 400
        assert call("DELETE", path).json() == {**member, "role": "admin"}
        gone = call("DELETE", path)
        assert (gone.status_code, gone.json()["message"]) == (404, "Member not found")

    def test_who_leave_are_put_in_again_by_nobody_but_themselves(self, call, ria):
        mio = accounts.user()
        theirs = accounts.api_key(owner=mio)[1]
        member = {"type": "user", "userId": mio.pk}
        call("POST", body={"id": "c2", "members": [member]})
        (path,) = (
            f"/c2/members/{one['id']}"
            for one in call("GET", "/c2").json()["members"]
            if one["userId"] == mio.pk
        )
        assert call("DELETE", path, token=theirs).status_code == 200

        refused = call("POST", "/c2/members", member)
        returned = call("POST", "/c2/members", member, token=theirs)

        assert (refused.status_code, refused.json()["error"]) == (403, "FORBIDDEN")
        assert (returned.status_code, returned.json()["role"]) == (200, "member")
        assert call("GET", token=theirs).json()["chats"][0]["id"] == "c2"

    def test_are_put_into_few_chats_by_strangers(self, call):
        """As it was done: 150 chats in two seconds, each with the same person."""
        mio = accounts.user()
        theirs = accounts.api_key(owner=mio)[1]
        body = {"members": [{"type": "user", "userId": mio.pk}]}

        answers = [call("POST", body=body) for _ in range(50)]

        assert [answer.status_code for answer in answers] == [201] * 20 + [429] * 30
        refused = answers[-1]
        assert (refused.json()["error"], refused.json()["details"]) == (
            "TOO_MANY_REQUESTS", {"userId": mio.pk}
        )  # fmt: skip
        assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
        assert len(call("GET", token=theirs).json()["chats"]) == 20

    def test_are_put_in_by_no_stranger_where_the_operator_says_so(self, call, room):
        options.put("CHAT_STRANGERS", False, by="op", at=chats.NOW)
        zoe = {"type": "user", "userId": "zoe"}

        for answer in (call("POST", "/c1/members", zoe), call("POST", body={"members": [zoe]})):
            assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")

    @pytest.mark.parametrize(
        "body", [{"type": "user"}, {"type": "bot"}, {"type": "user", "characterId": "a"}, {}]
    )
    def test_without_an_id_are_refused(self, call, room, body):
        assert call("POST", "/c1/members", body).status_code == 400


ROUTES = [
    ("GET", "", None), ("PATCH", "", {"title": "x"}), ("DELETE", "", None),
    ("POST", "/members", {"type": "user", "userId": "stranger"}),
    ("PATCH", "/members/{member}", {"role": "admin"}), ("DELETE", "/members/{member}", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
class TestAccess:
    """Case 120, for every route that names a chat."""

    def test_is_for_members_of_live_chats(self, call, room, method, path, body):
        path = path.format(member=chats.member(room, "mio").pk)
        stranger = accounts.api_key()[1]

        answer = call(method, "/c1" + path, body, token=stranger)
        missing = call(method, "/nothing" + path, body)

        assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")
        assert (missing.status_code, missing.json()["message"]) == (404, "Chat not found")
        assert call("DELETE", "/c1").status_code == 200
        for token in (stranger, None):
            expected = 404 if token else 401
            assert call(method, "/c1" + path, body, token=token).status_code == expected
        assert call(method, "/c1" + path, body).status_code == 404
