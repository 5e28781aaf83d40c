"""`open_requests.sql`: admission, one member after the other, under the account's lock."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airi_server.kernel import ids
from billing.models import APIKeySpend
from billing.requests import SpendingLimits
from tests.billing.twins import Account
from tests.factories import billing as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def price():
    return make.price()


@pytest.fixture
def ticket(price):
    """Make tickets of Mio's at one Flux a token."""
    return lambda user_id="mio", **facts: make.ticket(user_id, price, **facts)


class TestAdmission:
    def test_holds_what_is_wanted_or_what_is_free(self, ticket):
        make.make_account(100, "mio")

        outcomes = make.open_batch(
            make.opening(ticket(), 60, 10),
            make.opening(ticket(), 60, 10),
            make.opening(ticket(), 60, 10),
        )

        assert [outcome[:3] for outcome in outcomes] == [
            ("opened", 60, 100),
            ("opened", 40, 40),
            ("insufficient", 0, 0),
        ]
        assert make.state_of("mio") == (100, 100)
        assert make.broken_here() == []

    def test_a_refused_hold_does_not_push_out_a_small_one_behind_it(self, ticket):
        make.make_account(10, "mio")

        outcomes = make.open_batch(
            make.opening(ticket(), 11), make.opening(ticket(), 10), make.opening(ticket(), 1)
        )

        assert [outcome[0] for outcome in outcomes] == ["insufficient", "opened", "insufficient"]

    def test_the_row_says_what_was_opened(self, ticket):
        make.make_account(10, "mio")
        one = ticket(
            api_key_id="k", client_key="c", input_hash="ab" * 32, stream=True, prompt_estimate=4
        )

        make.open_one(one, 5, deadline_s=90)

        row = make.request_of(one)
        assert (row.state, row.hold, row.flux_charged, row.settled_at) == ("open", 5, 0, None)
        assert (row.attempts, row.checkpoint, row.usage_source) == (0, 0, "none")
        assert (row.api_key_id, row.client_key, row.stream) == ("k", "c", True)
        assert row.input_hash is not None
        assert (bytes(row.input_hash).hex(), row.price_version) == ("ab" * 32, one.price.version)
        assert row.deadline_at - row.opened_at == timedelta(seconds=90)

    def test_the_same_id_again_is_a_replay_with_its_hold(self, ticket):
        make.make_account(10, "mio")
        one = ticket()

        outcomes = make.open_batch(make.opening(one, 4), make.opening(one, 4))

        assert [outcome[:2] for outcome in outcomes] == [("opened", 4), ("replayed", 4)]
        assert make.open_one(one, 4)[:2] == ("replayed", 4)
        assert make.state_of("mio") == (10, 4)

    def test_users_of_one_batch_do_not_touch_each_other(self, ticket):
        for user_id in ("mio", "ria", "zoe"):
            make.make_account(10, user_id)
        users = ["zoe", "mio", "nobody", "zoe", "mio", "ria"]

        outcomes = make.open_batch(*(make.opening(ticket(user), 6) for user in users))

        assert [outcome[0] for outcome in outcomes] == [
            "opened",
            "opened",
            "no_account",
            "insufficient",
            "insufficient",
            "opened",
        ]
        assert [make.state_of(user) for user in ("mio", "ria", "zoe")] == [(10, 6)] * 3
        assert make.broken_here() == []

    @pytest.mark.parametrize(
        ("columns", "outcome"),
        [({"frozen": True}, "frozen"), ({"deleted_at": make.NOW}, "deleted")],
    )
    def test_an_account_that_may_not_pay_is_refused(self, ticket, columns, outcome):
        make.make_account(10, "mio", **columns)

        assert make.open_one(ticket(), 1)[:2] == (outcome, 0)
        assert make.state_of("mio") == (10, 0)

    def test_a_frozen_account_with_more_held_than_there_is_has_nothing_free(self, ticket):
        make.make_account(10, "mio")
        one = ticket()
        make.open_one(one, 10)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE user_flux SET frozen = true, held = 12")

        assert make.open_one(ticket(), 1)[:3] == ("frozen", 0, 0)


class TestClientKeys:
    def test_a_key_is_taken_until_its_request_is_voided(self, ticket):
        make.make_account(100, "mio")
        make.make_account(100, "ria")
        first = ticket(client_key="k")

        outcomes = make.open_batch(
            make.opening(first, 1),
            make.opening(ticket(client_key="k"), 1),
            make.opening(ticket(), 1),
            make.opening(ticket(client_key="k", kind="tts"), 1),
            make.opening(ticket("ria", client_key="k"), 1),
        )
        again = make.open_one(ticket(client_key="k"), 1)
        make.settle_one(make.settlement(first, None))
        after = make.open_one(ticket(client_key="k"), 1)

        assert [(outcome[0], outcome[3]) for outcome in outcomes] == [
            ("opened", None),
            ("duplicate", first.id),
            *[("opened", None)] * 3,
        ]
        assert (again[0], again[3], after[0]) == ("duplicate", first.id, "opened")
        assert make.broken_here() == []

    def test_a_settled_request_keeps_its_key_on_an_empty_account(self, ticket):
        make.make_account(5, "mio")
        first = ticket(client_key="k")
        make.open_one(first, 5)
        make.settle_one(make.settlement(first, 5))

        assert make.open_one(ticket(client_key="k"), 5)[0] == "duplicate"


class TestSpendingLimits:
    @pytest.mark.parametrize("span", ["day", "month", "total"])
    def test_a_limit_counts_what_was_spent_and_what_is_held(self, ticket, span):
        make.make_account(1000, "mio")
        limits = SpendingLimits(**{span: 10})
        spent, held = ticket(api_key_id="k"), ticket(api_key_id="k")
        make.open_one(spent, 4)
        make.settle_one(make.settlement(spent, 4))
        make.open_one(held, 3)

        refused = make.open_one(ticket(api_key_id="k"), 4, limits=limits)
        fits = make.open_one(ticket(api_key_id="k"), 8, floor=1, limits=limits)
        other_key = make.open_one(ticket(api_key_id="other"), 9, limits=limits)

        assert refused[:3] == ("key_limit", 0, 3)
        assert fits[:2] == ("opened", 3)
        assert other_key[:2] == ("opened", 9)

    def test_days_and_months_begin_anew(self, ticket):
        make.make_account(1000, "mio")
        now = make.run("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date", {})[0][0]
        last_month = now.replace(day=1) - timedelta(days=1)
        spend = {"user_id": "mio", "api_key_id": "k"}
        APIKeySpend.objects.create(**spend, day=last_month, flux=100)
        APIKeySpend.objects.create(**spend, day=now, flux=5)

        def room(**limits):
            one = ticket(api_key_id="k")
            found = make.open_one(one, 500, floor=1, limits=SpendingLimits(**limits))
            make.settle_one(make.settlement(one, None))
            return found[:2]

        assert room(day=10) == ("opened", 5)
        assert room(month=10) == ("opened", 5)
        assert room(total=110) == ("opened", 5)
        assert room(total=105) == ("key_limit", 0)
        assert room(day=9, month=8, total=106) == ("opened", 1)

    def test_a_month_begins_with_its_first_day(self, ticket):
        make.make_account(1000, "mio")
        today = make.run("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date", {})[0][0]
        spend = {"user_id": "mio", "api_key_id": "k"}
        for day, flux in ((1, 5), (2, 3)):
            APIKeySpend.objects.create(**spend, day=today.replace(day=day), flux=flux)

        found = make.open_one(ticket(api_key_id="k"), 500, floor=1, limits=SpendingLimits(month=10))

        assert found[:2] == ("opened", 2)

    def test_a_batch_shares_the_limit(self, ticket):
        make.make_account(1000, "mio")
        limits = SpendingLimits(day=10)

        outcomes = make.open_batch(
            *(make.opening(ticket(api_key_id="k"), 4, limits=limits) for _ in range(4))
        )

        assert [outcome[0] for outcome in outcomes] == [
            "opened",
            "opened",
            "key_limit",
            "key_limit",
        ]


MEMBERS = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["a", "b"]),
            "floor": st.integers(0, 12),
            "more": st.integers(0, 20),
            "client_key": st.sampled_from([None, None, "k", "l"]),
            "api_key_id": st.sampled_from([None, "x", "y"]),
            "limit_day": st.sampled_from([None, None, 15]),
            "limit_total": st.sampled_from([None, None, 25]),
            "repeats": st.booleans(),
        }
    ),
    max_size=9,
)


class TestTwin:
    @given(
        members=MEMBERS,
        cut=st.integers(0, 9),
        flux=st.integers(0, 60),
        frozen=st.sampled_from([False, False, False, True]),
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_batches_do_what_ten_lines_of_python_do(self, price, members, cut, flux, frozen):
        users = {name: make.make_account(flux, frozen=frozen) for name in "ab"}
        twins = {user_id: Account(flux, frozen=frozen) for user_id in users.values()}
        rows = []
        for member in members:
            one = make.ticket(
                users[member["user"]],
                price,
                client_key=member["client_key"],
                api_key_id=member["api_key_id"],
            )
            limits = SpendingLimits(day=member["limit_day"], total=member["limit_total"])
            floor = member["floor"]
            row = make.opening(one, floor + member["more"], floor, limits=limits)
            rows += [row, row] if member["repeats"] else [row]

        expected = [twins[row["user_id"]].open(row) for row in rows]
        found = []
        for batch in (rows[:cut], rows[cut:]):
            found += make.open_batch(*batch) if batch else []

        assert [outcome[:2] for outcome in found] == expected
        for user_id, twin in twins.items():
            assert make.state_of(user_id) == (twin.flux, twin.held)
            assert make.broken_here(user_id) == []

    def test_an_id_is_no_key_to_another_row(self, ticket):
        make.make_account(10, "mio")
        one = ticket(id=ids.uuid7())
        make.open_one(one, 1)

        assert make.open_one(ticket(), 1)[0] == "opened"


@pytest.mark.django_db(transaction=True)
def test_what_follows_on_the_connection_waits_for_the_disk(ticket):
    make.make_account(10, "mio")
    make.run("SELECT set_config('synchronous_commit', 'on', false)", {})
    one = ticket()

    make.open_one(one, 1)
    make.mark_batch((one, 1))

    assert make.run("SHOW synchronous_commit", {}) == [("on",)]
