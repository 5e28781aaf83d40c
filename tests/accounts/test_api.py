import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts import keys
from accounts.models import APIKey
from airi_server.api import api
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
URL = "/api/v1/keys"


@pytest.fixture
def owner():
    return make.user()


@pytest.fixture
def call(client, owner):
    """Call with a plain key of `owner`, or with the key that is given."""
    _, plain = make.api_key(owner=owner, name="plain")

    def call(method, path="", body=None, *, token=plain):
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return client.generic(
            method,
            URL + path,
            body,
            "application/json",
            headers={"authorization": f"Bearer {token}"},
        )

    return call


def settings_of(answer):
    shown = answer.json()
    return {name: shown[name] for name in shown if name not in ("id", "prefix", "createdAt", "key")}


class TestCreate:
    def test_shows_the_key_once(self, call):
        answer = call("POST", body={"name": " laptop "})

        shown = answer.json()
        assert answer.status_code == 201
        assert answer["Cache-Control"] == "no-store"
        assert shown["key"].startswith(shown["prefix"])
        assert shown["prefix"] == "sk-airi-" + shown["id"]
        assert settings_of(answer) == {
            "name": "laptop",
            "expiresAt": None,
            "disabled": False,
            "lastUsedAt": None,
            "allowedModels": [],
            "allowedAddresses": [],
            "limits": {"day": None, "month": None, "total": None},
            "requestsPerMinute": None,
            "tokensPerMinute": None,
            "parallelRequests": None,
        }
        assert "key" not in call("GET", token=shown["key"]).json()[0]

    def test_keeps_what_was_set(self, call):
        wanted = {
            "name": "laptop",
            "expiresAt": "2099-01-31T12:00:00.000Z",
            "allowedModels": ["m"],
            "allowedAddresses": ["10.0.0.0/8"],
            "limits": {"day": 1, "month": 2, "total": 2**53 - 1},
        }
        rates = {"requestsPerMinute": None, "tokensPerMinute": None, "parallelRequests": None}

        answer = call("POST", body=wanted)

        assert settings_of(answer) == {**wanted, **rates, "disabled": False, "lastUsedAt": None}

    def test_reads_any_offset(self, call):
        answer = call("POST", body={"name": "n", "expiresAt": "2099-01-31T14:00:00+02:00"})

        assert answer.json()["expiresAt"] == "2099-01-31T12:00:00.000Z"

    def test_refuses_one_too_many(self, call, monkeypatch):
        monkeypatch.setattr(keys, "MAX_PER_USER", 1)

        answer = call("POST", body={"name": "laptop"})

        assert (answer.status_code, answer.json()["error"]) == (409, "CONFLICT")


class TestList:
    def test_is_newest_first_and_only_ones_own(self, call, owner):
        make.api_key(owner=owner, name="newer")
        make.api_key(name="somebody else's")

        answer = call("GET")

        assert [key["name"] for key in answer.json()] == ["newer", "plain"]
        assert answer.json()[1]["lastUsedAt"].endswith("Z")


class TestChange:
    def test_leaves_what_is_not_named(self, call, owner):
        key, _ = make.api_key(owner=owner, limit_day=5, limit_month=6, allowed_models=["m"])

        answer = call("PATCH", f"/{key.public_id}", {"limits": {"day": None}, "name": "desk"})

        shown = answer.json()
        assert answer.status_code == 200
        assert shown["limits"] == {"day": None, "month": 6, "total": None}
        assert (shown["name"], shown["allowedModels"]) == ("desk", ["m"])

    def test_disables_for_good(self, call, owner):
        key, token = make.api_key(owner=owner)

        assert call("PATCH", f"/{key.public_id}", {"disabled": True}).json()["disabled"] is True
        assert call("PATCH", f"/{key.public_id}", {"disabled": False}).status_code == 400
        assert call("PATCH", f"/{key.public_id}", {"disabled": None}).json()["disabled"] is True
        assert call("GET", token=token).status_code == 401

    def test_a_refused_change_changes_nothing(self, call, owner):
        key, _ = make.api_key(owner=owner)

        answer = call(
            "PATCH", f"/{key.public_id}", {"disabled": True, "allowedAddresses": ["nowhere"]}
        )

        assert answer.status_code == 400
        key.refresh_from_db()
        assert key.disabled_at is None


class TestDelete:
    def test_is_final(self, call, owner):
        key, token = make.api_key(owner=owner)

        answer = call("DELETE", f"/{key.public_id}")

        assert (answer.status_code, answer.content) == (204, b"")
        assert call("DELETE", f"/{key.public_id}").status_code == 404
        assert call("GET", token=token).status_code == 401


class TestAccess:
    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    @pytest.mark.parametrize("public_id", [None, "AAAAAAAAAAAA", "%00", "x" * 5000, "%F0%9F%98%80"])
    def test_foreign_and_missing_are_the_same(self, call, method, public_id):
        foreign, _ = make.api_key()

        answer = call(method, f"/{public_id or foreign.public_id}", {"disabled": True})

        assert (answer.status_code, answer.json()["error"]) == (404, "NOT_FOUND")
        foreign.refresh_from_db()
        assert foreign.disabled_at is None

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", ""), ("POST", ""), ("PATCH", "/A"), ("DELETE", "/A")]
    )
    def test_anonymous_callers_are_refused(self, call, method, path):
        assert call(method, path, {"name": "n"}, token="nothing").status_code == 401

    @pytest.mark.parametrize(
        "restriction",
        [
            {"limit_day": 1},
            {"allowed_models": ["m"]},
            {"allowed_addresses": ["127.0.0.1"]},
            {"requests_per_minute": 1},
            {"expires_at": datetime.now(UTC) + timedelta(days=1)},
        ],
    )
    def test_a_restricted_key_manages_nothing(self, call, owner, restriction):
        key, token = make.api_key(owner=owner, **restriction)
        mine = f"/{key.public_id}"

        answers = [
            call("POST", body={"name": "n"}, token=token),
            call("PATCH", mine, {"limits": {"day": None}}, token=token),
            call("DELETE", mine, token=token),
        ]

        assert [answer.status_code for answer in answers] == [403] * 3
        assert call("GET", token=token).status_code == 200
        assert APIKey.objects.filter(pk=key.pk).exists()


WRONG: dict[str, list[Any]] = {
    "name": [None, "", " ", 1, True, "x" * 101, "a\x00b", "\ud800", ["n"], {}],
    "expiresAt": [
        1893456000, True, "", "soon", "2099-01-01T00:00:00", "2001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2099-13-01T00:00:00Z", [],
    ],
    "allowedModels": [None, "m", [1], [""], ["x" * 201], ["m"] * 101, [None], ["\x00"], ["\udfff"]],
    "allowedAddresses": [
        None, ["x"], [""], [1], ["10.0.0.0/33"], ["1" * 65], ["::1"] * 101, ["\x00"],
    ],
    "limits": [
        None, 5, [], {"day": 0}, {"day": -1}, {"day": True}, {"day": 1.0}, {"day": "1"},
        {"month": 2**53}, {"total": 10**30}, {"week": 1},
    ],
    # The operator's: an owner could lift them.
    "requestsPerMinute": [0, 1, None],
    "tokensPerMinute": [0],
    "parallelRequests": [0],
    "id": ["AAAAAAAAAAAA"],
    "userId": ["somebody"],
    "user_id": ["somebody"],
    "createdAt": ["2099-01-01T00:00:00Z"],
    "limit_day": [1],
    "secretHash": ["x"],
}  # fmt: skip
CASES: list[tuple[str, object]] = [
    (field, value) for field, values in WRONG.items() for value in values
]
NO_JSON = [
    "", "{", "null", "[]", "1", '"x"', "NaN", '{"name": NaN}', '{"limits": {"day": 1e400}}',
    "[" * 100_000, '{"a":' * 5000, b"\xff\xfe", b'{"name": "\xff"}', "1" * 5000,
    '{"limits": {"day": ' + "9" * 5000 + "}}",
]  # fmt: skip


class TestValidation:
    @pytest.mark.parametrize(("field", "value"), CASES)
    def test_what_does_not_fit_is_refused(self, call, owner, field, value):
        key, _ = make.api_key(owner=owner)

        created = call("POST", body={"name": "n", field: value})
        changed = call("PATCH", f"/{key.public_id}", {field: value})

        for answer in (created, changed):
            assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")
        assert APIKey.objects.count() == 2

    @pytest.mark.parametrize("body", NO_JSON)
    def test_what_is_no_object_is_refused(self, call, owner, body):
        key, _ = make.api_key(owner=owner)

        assert call("POST", body=body).status_code == 400
        assert call("PATCH", f"/{key.public_id}", body).status_code == 400

    def test_a_name_is_required(self, call):
        assert call("POST", body={}).status_code == 400


class TestOpenAPI:
    def test_documents_every_refusal(self):
        documented = {
            (method, path): set(operation["responses"])
            for path, methods in api.get_openapi_schema()["paths"].items()
            if path.startswith(URL)
            for method, operation in methods.items()
        }

        assert documented == {
            ("get", URL): {200, 401, 403},
            ("post", URL): {201, 400, 401, 403, 409},
            ("patch", URL + "/{id}"): {200, 400, 401, 403, 404},
            ("delete", URL + "/{id}"): {204, 401, 403, 404},
        }

    def test_names_the_bearer_scheme(self):
        schemes = api.get_openapi_schema()["components"]["securitySchemes"]

        assert schemes["KeyAuth"] == {"type": "http", "scheme": "bearer"}
