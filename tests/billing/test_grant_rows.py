"""The rows of a grant: written with the entries, refusals and failures included, and kept."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from airi_server.kernel import resources
from airi_server.runtime import audit
from billing import grants, ledger
from billing.grants import GrantOrder, Named
from billing.models import FluxGrant, FluxGrantPerson, FluxTransaction
from tests.billing.corruption import corrupt
from tests.billing.test_grants import LATER, NEARLY_FULL, NOW, RIA, apply, order
from tests.billing.test_ledger import at_once
from tests.factories import accounts
from tests.factories import billing as make


def rows(**facts):
    """Return position, address, result and whether there is an entry."""
    found = FluxGrantPerson.objects.filter(**facts).order_by("position", "id")
    return [(each.position, each.email, str(each.result), bool(each.entry_id)) for each in found]


@pytest.fixture
def people():
    """Ann and Bob can be paid; Cyd's account is deleted."""
    found = {name: accounts.user(email=f"{name}@x.io") for name in ("ann", "bob", "cyd")}
    make.make_account(5, found["cyd"].pk, deleted_at=NOW)
    return found


@pytest.mark.django_db
class TestRows:
    def test_say_what_became_of_everybody(self, people):
        result = apply("bob@x.io", "no@x.io", "ann@x.io", "BOB@x.io", "cyd@x.io")

        grant = FluxGrant.objects.get()
        assert (grant.pk, grant.key, grant.description) == (result.grant_id, "k", "welcome")
        assert (grant.amount, grant.granted_by, grant.granted_at) == (100, "ria", NOW)
        assert rows() == [
            (0, "bob@x.io", "granted", True),
            (1, "no@x.io", "not_found", False),
            (2, "ann@x.io", "granted", True),
            (3, "BOB@x.io", "duplicate_in_input", False),
            (4, "cyd@x.io", "user_deleted", False),
        ]
        ann = FluxGrantPerson.objects.get(email="ann@x.io")
        assert ann.entry == make.entries_of(people["ann"].pk)[-1]
        assert (ann.user_id, ann.amount, ann.pasted) == (people["ann"].pk, 100, "ann@x.io")
        assert make.broken_here() == []

    def test_are_written_once_however_often_the_key_is_sent(self, people):
        for at in (NOW, LATER):
            apply("ann@x.io", "no@x.io", "ANN@x.io", at=at, amount=7 if at == LATER else 100)

        assert FluxGrant.objects.get().amount == 100
        assert [row[2] for row in rows()] == ["granted", "not_found", "duplicate_in_input"]

    def test_grow_with_who_is_found_later(self, people):
        apply("ann@x.io", "dee@x.io")
        accounts.user(email="dee@x.io")

        apply("ann@x.io", "dee@x.io", at=LATER)

        assert [row[1:3] for row in rows()] == [
            ("ann@x.io", "granted"), ("dee@x.io", "not_found"), ("dee@x.io", "granted"),
        ]  # fmt: skip
        assert make.broken_here() == []

    def test_without_a_key_are_a_grant_each_time(self, people):
        apply("ann@x.io", key=None)
        apply("ann@x.io", key=None)

        assert FluxGrant.objects.filter(key=None).count() == 2
        assert [row[2] for row in rows()] == ["granted", "granted"]

    def test_keep_what_was_pasted_and_an_amount_for_each(self, people):
        named = (Named("ann@x.io", 5, "Ann <ann@x.io>"), Named("bob@x.io", 7))

        result = grants.apply(GrantOrder(named, "hi", "k"), by=RIA, at=NOW)

        assert result.flux_moved == 12
        assert FluxGrant.objects.get().amount is None
        found = FluxGrantPerson.objects.order_by("position").values_list("pasted", "amount")
        assert list(found) == [("Ann <ann@x.io>", 5), ("bob@x.io", 7)]
        assert make.state_of(people["bob"].pk) == (7, 0)

    def test_of_a_failure_say_why_each_time(self, people):
        make.make_account(NEARLY_FULL, people["bob"].pk)

        for _ in range(2):
            apply("bob@x.io", "ann@x.io")

        assert [row[1:3] for row in rows()] == [
            ("bob@x.io", "failed"), ("bob@x.io", "failed"), ("ann@x.io", "granted"),
        ]  # fmt: skip
        assert FluxGrantPerson.objects.filter(error=grants.FAILED).count() == 2

    def test_of_a_payment_that_is_undone_are_undone(self, people):
        (failed,) = apply("ann@x.io", by=audit.Actor("x" * 300, user_id="ria")).failed

        assert failed.error == grants.FAILED
        assert [row[2] for row in rows()] == ["failed"]

    def test_of_a_grant_by_id_have_no_address(self, people):
        for _ in range(2):
            ledger.grant(
                user_id="mio", amount=5, request_id="gift", description="d", by="cli", at=NOW
            )

        person = FluxGrantPerson.objects.get()
        assert (person.user_id, person.email, person.pasted) == ("mio", None, None)
        assert (person.grant.granted_by, person.grant.key) == ("cli", None)
        assert make.broken_here() == []


@pytest.mark.django_db
class TestAgain:
    def test_orders_for_whoever_failed_and_has_nothing(self, people, monkeypatch):
        monkeypatch.setattr(grants, "BUDGET_S", -1.0)
        grant = apply("ann@x.io", "bob@x.io", "no@x.io").grant_id
        monkeypatch.undo()
        apply("bob@x.io")

        again = grants.again(grant)

        assert again == order("ann@x.io") or [each.email for each in again.people] == ["ann@x.io"]
        assert (again.key, again.description) == ("k", "welcome")
        grants.apply(again, by=RIA, at=LATER)
        assert grants.again(grant).people == ()
        assert make.broken_here() == []

    def test_without_a_key_orders_for_nobody(self, people, monkeypatch):
        monkeypatch.setattr(grants, "BUDGET_S", -1.0)
        grant = apply("ann@x.io", key=None).grant_id

        assert grants.again(grant).people == ()


@pytest.mark.django_db(transaction=True)
def test_the_same_order_at_the_same_instant_is_one_grant():
    emails = [accounts.user().email for _ in range(5)]

    results = at_once(4, lambda _: apply(*emails, "no@x.io"))

    assert len({result.grant_id for result in results}) == 1
    assert len(rows(result="granted")) == 5
    assert len(rows(result="not_found")) == 1
    with transaction.atomic():
        assert make.broken_here() == []


@pytest.mark.django_db
class TestGuards:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE flux_grant SET description = 'x'",
            "DELETE FROM flux_grant",
            "TRUNCATE flux_grant CASCADE",
            "UPDATE flux_grant_person SET result = 'failed'",
            "UPDATE flux_grant_person SET entry_id = NULL, email = NULL, pasted = NULL",
            "UPDATE flux_grant_person SET email = 'x@y.io'",
            "UPDATE flux_grant_person SET email = NULL",
            "UPDATE flux_grant_person SET pasted = NULL",
            "DELETE FROM flux_grant_person",
            "TRUNCATE flux_grant_person",
        ],
    )
    @pytest.mark.parametrize("replica", [False, True])
    def test_refuse_every_change_but_erasing(self, people, statement, replica):
        apply("ann@x.io")

        with (
            pytest.raises(IntegrityError),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if replica:
                cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(statement)

    @pytest.mark.parametrize(
        ("claim", "facts"),
        [
            ("result_known", {"result": "maybe", "error": ""}),
            ("amount_positive", {"amount": 0}),
            ("position_not_negative", {"position": -1}),
            ("granted_has_entry", {"result": "granted", "error": ""}),
            ("failed_says_why", {"error": ""}),
            ("failed_says_why", {"result": "not_found"}),
            ("granted_is_somebody", {"user_id": None}),
            ("erased_whole", {"email": None}),
        ],
    )
    def test_refuse_a_row_that_cannot_be(self, people, claim, facts):
        grant = FluxGrant.objects.get(pk=apply("no@x.io").grant_id)
        failed = {
            "grant": grant, "position": 0, "pasted": "a@x.io", "email": "a@x.io",
            "user_id": "mio", "amount": 5, "result": "failed", "error": "why", "at": NOW,
        }  # fmt: skip

        with (
            pytest.raises(IntegrityError, match=f"flux_grant_person_{claim}"),
            transaction.atomic(),
        ):
            FluxGrantPerson.objects.create(**{**failed, **facts})

    @pytest.mark.parametrize(
        ("claim", "facts"),
        [
            ("amount_positive", {"amount": 0}),
            ("has_a_granter", {"granted_by": ""}),
            ("key_uniq", {"key": "k"}),
        ],
    )
    def test_refuse_a_grant_that_cannot_be(self, people, claim, facts):
        apply("no@x.io")
        grant = {"description": "d", "granted_by": "ria", "granted_at": NOW}

        with pytest.raises(IntegrityError, match=f"flux_grant_{claim}"), transaction.atomic():
            FluxGrant.objects.create(**{**grant, **facts})


@pytest.mark.django_db
class TestErasure:
    def test_takes_the_addresses_of_who_leaves_and_nothing_else(self, people):
        apply("no@x.io", "Dee@x.io", "ann@x.io")
        dee = accounts.user(email="dee@x.io")
        apply("dee@x.io", "DEE@x.io", "ann@x.io", at=LATER)

        for _ in range(2):
            grants.erase_addresses(user_id=dee.pk, at=LATER)

        assert rows() == [
            (0, "no@x.io", "not_found", False),
            (0, None, "granted", True),
            (1, None, "not_found", False),
            (1, None, "duplicate_in_input", False),
            (2, "ann@x.io", "granted", True),
        ]
        assert FluxGrantPerson.objects.filter(pasted=None).count() == 3
        assert FluxGrantPerson.objects.filter(user_id=dee.pk, amount=100).count() == 2
        assert make.broken_here() == []

    def test_of_somebody_who_is_gone_goes_by_the_id(self, people):
        apply("ann@x.io")
        ann = people["ann"].pk
        people["ann"].delete()

        grants.erase_addresses(user_id=ann, at=LATER)

        assert rows() == [(0, None, "granted", True)]


@pytest.mark.django_db
class TestBackfill:
    NAME_GRANTS = resources.read_text("billing", "sql/name_grants.sql")

    def test_names_the_grants_of_before_by_their_keys(self, people):
        apply("ann@x.io", "bob@x.io")
        apply("ann@x.io", key=None)
        ledger.grant(user_id="mio", amount=5, request_id="g", description="d", by="cli", at=NOW)
        corrupt("DELETE FROM flux_grant_person; DELETE FROM flux_grant", {})
        assert [line.split()[0] for line in make.broken_here()] == ["I17"] * 4

        with connection.cursor() as cursor:
            for _ in range(2):
                cursor.execute(self.NAME_GRANTS)

        keyed = FluxGrant.objects.get(key="k")
        assert (keyed.description, keyed.amount, keyed.granted_by) == ("welcome", 100, "ria")
        assert FluxGrantPerson.objects.filter(grant=keyed).count() == 2
        assert set(FluxGrant.objects.filter(key=None).values_list("granted_by", flat=True)) == {
            "ria", "cli",
        }  # fmt: skip
        assert (
            FluxGrantPerson.objects.count() == FluxTransaction.objects.filter(kind="promo").count()
        )
        assert make.broken_here() == []
