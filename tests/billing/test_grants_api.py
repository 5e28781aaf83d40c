"""`POST /api/admin/flux-grants` (contract §10)."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import Permission

from airi_server.runtime import audit
from billing.models import FluxTransaction
from tests.airi_server.test_input import BODIES, VALUES
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
URL = "/api/admin/flux-grants"
BODY = {"description": "welcome", "amount": 100, "emails": ["ann@x.io"], "idempotencyKey": "k"}
LIST = ["Ann@x.io", "b@x.io", "cyd@x.io", "ann@x.io"]


@pytest.fixture
def operator():
    user = accounts.user(email="op@x.io", verified=True, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="grant_flux"))
    return user


@pytest.fixture
def people():
    """Ann has 50 Flux, Cyd's account is deleted, Dan's is too full for a grant."""
    found = {name: accounts.user(email=f"{name}@x.io").pk for name in ("ann", "cyd", "dan")}
    make.make_account(50, found["ann"])
    make.make_account(5, found["cyd"], deleted_at=make.NOW)
    make.make_account(2**63 - 10, found["dan"])
    return found


@pytest.fixture
def call(client, operator):
    """Call as the operator, or as whoever is given."""
    _, own = accounts.api_key(owner=operator)

    def call(body, query="", *, user=None, **key_settings):
        token = own
        if user or key_settings:
            _, token = accounts.api_key(owner=user or operator, **key_settings)
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        headers = {"authorization": f"Bearer {token}"}
        return client.generic("POST", URL + query, body, "application/json", headers=headers)

    return call


def grants():
    return FluxTransaction.objects.filter(kind="promo").count()


class TestDryRun:
    def test_counts_and_samples_and_writes_nothing(self, call, people):
        """Case 147."""
        answer = call({**BODY, "emails": LIST}, "?dryRun=true")

        assert answer.status_code == 200
        assert answer.json() == {
            "preview": {
                "totalEmails": 4,
                "willGrant": 1,
                "willSkip": {"notFound": 1, "userDeleted": 1, "duplicateInInput": 1},
                "totalFluxToIssue": 100,
                "samples": {
                    "willGrant": ["Ann@x.io"],
                    "notFound": ["b@x.io"],
                    "userDeleted": ["cyd@x.io"],
                },
            }
        }
        assert (grants(), audit.AuditEntry.objects.count()) == (0, 0)
        assert make.state_of(people["ann"]) == (50, 0)

    def test_samples_are_at_most_five(self, call):
        emails = [f"No{number}@x.io" for number in range(7)]

        preview = call({**BODY, "emails": emails}, "?dryRun=true").json()["preview"]

        assert preview["willSkip"]["notFound"] == 7
        assert preview["samples"]["notFound"] == emails[:5]

    @pytest.mark.parametrize("value", ["1", "TRUE", "True", "yes", "", "true ", "false"])
    def test_only_the_exact_word_is_a_dry_run(self, call, people, value):
        assert "result" in call(BODY, f"?dryRun={value}").json()
        assert grants() == 1


class TestRealRun:
    def test_grants_skips_and_fails_in_one_answer(self, call, people, operator):
        """Case 148: Dan's credit fails."""
        answer = call({**BODY, "emails": ["dan@x.io", *LIST]})

        shown = answer.json()
        entry = FluxTransaction.objects.get(kind="promo")
        assert answer.status_code == 200
        assert shown["summary"]["willGrant"] == 2
        assert shown["summary"]["totalFluxToIssue"] == 200
        assert shown["result"]["granted"] == [
            {
                "email": "Ann@x.io",
                "userId": people["ann"],
                "fluxTransactionId": str(entry.pk),
                "balanceAfter": 150,
            }
        ]
        assert shown["result"]["skipped"] == [
            {"email": "b@x.io", "reason": "not_found"},
            {"email": "cyd@x.io", "reason": "user_deleted"},
            {"email": "ann@x.io", "reason": "duplicate_in_input"},
        ]
        (failed,) = shown["result"]["failed"]
        assert (failed["email"], failed["userId"]) == ("dan@x.io", people["dan"])
        assert 0 < len(failed["error"]) <= 500
        assert "bigint" not in failed["error"]
        assert entry.metadata == {
            "description": "welcome",
            "issuedByUserId": operator.pk,
            "idempotencyKey": "k",
        }
        assert audit.AuditEntry.objects.get().actor_id == operator.pk
        assert make.broken_here() == []

    def test_again_says_the_same_and_moves_nothing(self, call, people):
        first = call(BODY).json()

        again = call({**BODY, "amount": 200}).json()

        assert again["result"] == first["result"]
        assert make.state_of(people["ann"]) == (150, 0)

    @pytest.mark.parametrize(("key", "paid"), [({}, 2), ({"idempotencyKey": ""}, 1)])
    def test_without_a_key_a_retry_pays_again(self, call, people, key, paid):
        body = {name: BODY[name] for name in ("description", "amount", "emails")} | key

        call(body)
        call(body)

        assert grants() == paid

    def test_200_addresses_and_the_largest_values_are_taken(self, call, people):
        emails = [f"no{number}@x.io" for number in range(199)] + ["ann@x.io"]
        body = {
            "description": "x" * 500,
            "amount": 10_000,
            "emails": emails,
            "idempotencyKey": "k" * 100,
        }

        assert len(call(body).json()["result"]["granted"]) == 1
        assert make.state_of(people["ann"]) == (10_050, 0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "path"),
        [
            ({"amount": 0}, "amount"),
            ({"amount": 10_001}, "amount"),
            ({"amount": True}, "amount"),
            ({"amount": "5"}, "amount"),
            ({"amount": 1.5}, "amount"),
            ({"amount": 1e308}, "amount"),
            ({"amount": None}, "amount"),
            ({"description": ""}, "description"),
            ({"description": "x" * 501}, "description"),
            ({"description": "a\0b"}, "description"),
            ({"description": 7}, "description"),
            ({"emails": []}, "emails"),
            ({"emails": [f"a{n}@x.io" for n in range(201)]}, "emails"),
            ({"emails": "ann@x.io"}, "emails"),
            ({"emails": ["ann@x.io", "ann"]}, "emails.1"),
            ({"emails": ["a\0b@x.io"]}, "emails.0"),
            ({"emails": ["a" * 250 + "@x.io"]}, "emails.0"),
            ({"emails": [None]}, "emails.0"),
            ({"idempotencyKey": "k" * 101}, "idempotencyKey"),
            ({"idempotencyKey": None}, "idempotencyKey"),
            ({"idempotencyKey": "a\0b"}, "idempotencyKey"),
        ],
    )
    def test_name_the_field(self, call, people, change, path):
        answer = call({**BODY, **change})

        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_BODY")
        assert [fault["path"] for fault in answer.json()["details"]] == [path]
        assert all(fault["message"] for fault in answer.json()["details"])
        assert grants() == 0

    def test_name_every_field_that_is_missing(self, call):
        details = call({}).json()["details"]

        assert [fault["path"] for fault in details] == ["description", "amount", "emails"]

    @pytest.mark.parametrize("body", ["", "{", "[]", "null", "7", b"\xff", '{"amount":1e400}'])
    def test_what_is_no_object_of_json_is_an_invalid_body(self, call, body):
        answer = call(body)

        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_BODY")

    def test_a_whole_number_may_be_written_with_a_point(self, call, people):
        assert call(json.dumps(BODY).replace("100", "100.0")).status_code == 200
        assert make.state_of(people["ann"]) == (150, 0)


class TestBadInput:
    def test_of_any_kind_is_an_answer_a_program_can_read(self, call):
        sent: list[tuple[str, str | bytes]] = list(BODIES.items())
        sent += [
            (f"{field}: {value!r:.40}", json.dumps({**BODY, field: value}))
            for field in [*BODY, "unknown"]
            for value in VALUES
        ]

        for what, body in sent:
            answer = call(body)
            assert answer.status_code in (200, 400), what
            assert answer.status_code == 200 or answer.json()["error"] == "INVALID_BODY", what


class TestWho:
    def test_nobody_is_401(self, client):
        answer = client.post(URL, BODY, "application/json")

        assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")

    @pytest.mark.parametrize(
        "columns",
        [
            {"verified": True},
            {"verified": True, "is_staff": True},
            {"verified": False, "is_staff": True, "is_superuser": True},
        ],
    )
    def test_whoever_may_not_grant_is_403_whatever_they_send(self, call, people, columns):
        user = accounts.user(**columns)

        for body in (BODY, "{"):
            answer = call(body, user=user)
            assert (answer.status_code, answer.json()["error"]) == (403, "FORBIDDEN")
        assert grants() == 0

    def test_a_listed_address_needs_no_permission(self, call, people, settings):
        settings.ADMIN_EMAILS = ["boss@x.io"]

        assert call(BODY, user=accounts.user(email="Boss@x.io", verified=True)).status_code == 200

    def test_a_key_with_limits_does_not_grant(self, call, people):
        assert call(BODY, limit_day=5).status_code == 403
        assert grants() == 0
