"""The page of an account: what is there, what is held, and why it became less."""

from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing.admin.accounts import EXPLAINED, SHOWN
from billing.models import FluxAccount
from tests.billing.corruption import corrupt
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


def page_of(client, user_id, page="change"):
    return client.get(reverse(f"admin:billing_fluxaccount_{page}", args=[quote(user_id)]))


@pytest.fixture
def mio():
    """Mio has paid for twelve requests and has one open."""
    user = accounts.user(email="mio@example.com")
    price = make.price()
    make.make_account(1000, user.pk)
    for tokens in range(1, 13):
        one = make.ticket(user.pk, price)
        make.open_one(one, 20)
        make.settle_one(make.settlement(one, tokens))
    make.open_one(make.ticket(user.pk, price), 30)
    return user


class TestPage:
    def test_explains_the_last_ten_charges(self, client, mio):
        staff(client, "view_fluxaccount")

        explained = page_of(client, mio.pk).context["charges"]

        assert [entry.amount for entry, _, _ in explained] == list(range(12, 2, -1))
        assert len(explained) == EXPLAINED
        assert all(why.agrees for _, _, why in explained)
        assert all(row.flux_charged == entry.amount for entry, row, _ in explained)

    def test_shows_balance_held_free_and_what_is_open(self, client, mio):
        staff(client, "view_fluxaccount")
        account = FluxAccount.objects.get(pk=mio.pk)

        shown = page_of(client, mio.pk)

        assert (shown.context["free"], account.held) == (account.balance - 30, 30)
        ((held, age),) = shown.context["holds"]
        assert (held.hold, age.startswith("0 min")) == (30, True)
        assert len(shown.context["entries"]) <= SHOWN
        assert len(shown.context["requests"]) == 13
        text = shown.content.decode()
        assert "mio@example.com" in text
        assert reverse("admin:accounts_user_change", args=[quote(mio.pk)]) in text

    def test_of_somebody_new_says_what_comes_next(self, client):
        staff(client, "view_fluxaccount")
        FluxAccount.objects.create(user_id="new", updated_at=make.NOW)

        text = page_of(client, "new").content.decode()

        assert "Nothing was charged yet" in text
        assert "Nothing is held" in text
        assert "sent no paid request yet" in text

    def test_says_when_a_row_disagrees_with_its_price(self, client, mio):
        staff(client, "view_fluxaccount")
        newest = page_of(client, mio.pk).context["charges"][0][1]
        corrupt(
            "UPDATE llm_request_log SET prompt_tokens = 500 WHERE id = %(id)s", {"id": newest.pk}
        )

        assert "The row says 12." in page_of(client, mio.pk).content.decode()


class TestCheck:
    def test_says_that_all_is_well(self, client, mio):
        staff(client, "view_fluxaccount", "reconcile_books")

        answer = page_of(client, mio.pk, "check_books")

        assert (answer.status_code, answer.context["broken"]) == (200, [])
        assert "holds" in answer.content.decode()

    def test_names_what_breaks(self, client, mio):
        staff(client, "view_fluxaccount", "reconcile_books")
        FluxAccount.objects.filter(pk=mio.pk).update(balance=7, held=0)

        broken = page_of(client, mio.pk, "check_books").context["broken"]

        assert {row.user_id for row in broken} == {mio.pk}
        assert "I6" in {row.invariant for row in broken}

    def test_needs_its_permission(self, client, mio):
        staff(client, "view_fluxaccount")

        assert page_of(client, mio.pk, "check_books").status_code == 403
        address = reverse("admin:billing_fluxaccount_check_books", args=[quote(mio.pk)])
        assert address not in page_of(client, mio.pk).content.decode()
