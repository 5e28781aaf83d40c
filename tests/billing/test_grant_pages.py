"""The Grant Flux page: asked, previewed, applied; a second click pays nobody twice."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from airi_server.console import navigation
from airi_server.runtime import audit
from billing.models import FluxTransaction
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
URL = reverse("admin:grant_flux")
FORM = {"emails": "ann@x.io, no@x.io\nANN@x.io", "amount": "100", "description": "hi", "key": "k"}


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def operator(client):
    return staff(client, "grant_flux", "view_user", "view_fluxtransaction")


@pytest.fixture
def ann():
    return accounts.user(email="ann@x.io").pk


def post(client, button, **changes):
    return client.post(URL, {**FORM, **changes, button: "1"})


def hidden(page):
    """Return the fields of the hidden form that a page carries, as a browser would post them."""
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode())
    return {name: value for name, value in found if name != "csrfmiddlewaretoken"}


def text_of(page):
    """Return what a reader sees, in one line."""
    said = " ".join(re.sub(r"<[^>]*>", " ", page.content.decode()).split())
    return re.sub(r" ([.,:;])", r"\1", said)


@pytest.mark.usefixtures("operator")
class TestForm:
    def test_begins_with_a_key_of_its_own_and_the_address_of_the_link(self, client):
        first = client.get(URL, {"email": "ann\0@x.io"}).context["form"]
        second = client.get(URL).context["form"]

        assert first.initial["emails"] == "ann@x.io"
        assert len(first.initial["key"]) >= 20
        assert first.initial["key"] != second.initial["key"]

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"emails": ""}, "emails", "required"),
            ({"emails": " ,;\n"}, "emails", "at least one"),
            ({"emails": " \n"}, "emails", "required"),
            ({"emails": "ann@x.io, bob, c@, d"}, "emails", "3 of these are not e-mail addresses:"),
            ({"emails": "bob"}, "emails", "This is not an e-mail address: bob"),
            ({"emails": "a" * 300 + "@x.io"}, "emails", "a" * 60 + "…"),
            (
                {"emails": "\n".join(f"a{n}@x.io" for n in range(201))},
                "emails",
                "At most 200 addresses at once; these are 201.",
            ),
            ({"emails": "a\0b@x.io"}, "emails", "Null characters"),
            ({"emails": "x" * 100_000}, "emails", "at most"),
            ({"amount": "0"}, "amount", "greater than or equal to 1"),
            ({"amount": "10001"}, "amount", "less than or equal to 10000"),
            ({"amount": "1e400"}, "amount", "whole number"),
            ({"amount": "9" * 5_000}, "amount", "whole number"),
            ({"amount": "True"}, "amount", "whole number"),
            ({"description": "  "}, "description", "required"),
            ({"description": "x" * 501}, "description", "at most 500"),
            ({"description": "a\0"}, "description", "Null characters"),
            ({"key": ""}, "key", "required"),
            ({"key": "k" * 101}, "key", "at most 100"),
        ],
    )
    @pytest.mark.parametrize("button", ["_preview", "_apply"])
    def test_a_mistake_is_said_at_its_field(self, client, ann, button, change, field, said):
        page = post(client, button, **change)

        assert page.status_code == 200
        assert said in page.context["form"].errors[field][0]
        assert set(page.context["form"].errors) == {field}
        assert not FluxTransaction.objects.exists()


@pytest.mark.usefixtures("operator")
class TestPreview:
    def test_shows_everybody_and_the_total_and_writes_nothing(self, client, ann):
        make.make_account(5, accounts.user(email="cyd@x.io").pk, deleted_at=make.NOW)

        page = post(client, "_preview", emails=FORM["emails"] + "; cyd@x.io")

        said = text_of(page)
        assert "100 Flux for each of 1 person: 100 Flux in all" in said
        assert "Of 4 addresses, 1: named before in this list; 1: no user has this address;" in said
        assert "Will be granted: 1" in said
        assert "No user has this address: 1 E-mail no@x.io" in said
        assert "The account was deleted: 1 E-mail cyd@x.io" in said
        assert "Named before in this list: 1 E-mail ANN@x.io" in said
        assert reverse("admin:accounts_user_change", args=[ann.replace("_", "_5F")]) in (
            page.content.decode()
        )
        assert not FluxTransaction.objects.filter(kind="promo").exists()

    def test_carries_the_form_that_applies_it(self, client, ann):
        page = post(client, "_preview", description='<b>"hi"</b> & co')

        carried = hidden(page)
        assert carried["emails"] == "ann@x.io\nno@x.io\nANN@x.io"
        assert (carried["amount"], carried["key"]) == ("100", "k")
        assert carried["description"] == "&lt;b&gt;&quot;hi&quot;&lt;/b&gt; &amp; co"

    def test_warns_of_a_key_that_was_used_and_says_who_has_it(self, client, ann):
        accounts.user(email="bob@x.io")
        post(client, "_apply", amount="30")

        said = text_of(post(client, "_preview", emails="ann@x.io bob@x.io"))

        assert "This key was used before. 1 of these people has what it gave them" in said
        assert "Have it already by this key: 1 E-mail Flux Since ann@x.io 30 20" in said
        assert "Grant 100 Flux" in said

    def test_where_everybody_has_it_offers_to_show_what_it_gave(self, client, ann):
        post(client, "_apply")

        page = post(client, "_preview")

        assert "Nobody is left to pay" in text_of(page)
        assert "Show what it gave" in text_of(page)

    def test_without_anybody_to_pay_offers_only_to_edit(self, client):
        page = post(client, "_preview")

        assert "None of these can be granted anything" in text_of(page)
        assert "_apply" not in page.content.decode()

    def test_edit_leads_back_to_the_form_as_it_was(self, client, ann):
        form = post(client, "_edit").context["form"]

        assert (form["emails"].value(), form["key"].value()) == (FORM["emails"], "k")
        assert not FluxTransaction.objects.exists()

    def test_of_200_takes_few_statements(self, client, django_assert_max_num_queries):
        emails = "\n".join(accounts.user().email for _ in range(200))

        # session, user, permissions (2); users, closed accounts, keys used
        with django_assert_max_num_queries(10):
            page = post(client, "_preview", emails=emails)

        assert len(page.context["plan"].will_grant) == 200


class TestApply:
    def test_pays_what_was_previewed_and_shows_each_outcome(self, client, operator, ann):
        carried = hidden(post(client, "_preview"))

        page = client.post(URL, {**carried, "_apply": "1"})

        entry = FluxTransaction.objects.get(kind="promo")
        said = text_of(page)
        assert "1 granted now, 100 Flux in all" in said
        assert f"ann@x.io 100 100 granted {entry.pk}" in said
        assert "no@x.io No user has this address" in said
        assert "ANN@x.io Named before in this list" in said
        link = reverse("admin:billing_fluxtransaction_change", args=[entry.pk])
        assert f'href="{link}"' in page.content.decode()
        assert (entry.metadata or {})["issuedByUserId"] == operator.pk
        assert audit.AuditEntry.objects.get().actor_id == operator.pk
        assert make.broken_here() == []

    def test_again_shows_the_same_and_pays_nobody(self, client, operator, ann):
        post(client, "_apply")

        said = text_of(post(client, "_apply"))

        assert "0 granted now, 0 Flux in all; 1 had it already by this key" in said
        assert "ann@x.io 100 100 already granted by this key at 20" in said
        assert make.state_of(ann) == (100, 0)
        assert audit.AuditEntry.objects.count() == 1

    def test_a_failure_is_shown_and_can_be_tried_again(self, client, operator, ann):
        full = accounts.user(email="full@x.io").pk
        make.make_account(2**63 - 10, full)

        page = post(client, "_apply", emails="full@x.io ann@x.io")

        assert "1 granted now, 100 Flux in all; 1 failed" in text_of(page)
        assert hidden(page)["key"] == "k"
        assert "bigint" not in text_of(page)

    def test_of_200_people_fits_the_request(self, client, operator):
        emails = "\n".join(accounts.user().email for _ in range(200))

        with CaptureQueriesContext(connection) as captured:
            page = post(client, "_apply", emails=emails)

        assert len(page.context["result"].granted) == 200
        assert len(captured) <= 10 + 200 * 14
        assert make.broken_here() == []

    def test_links_nowhere_the_operator_may_not_look(self, client, ann):
        staff(client, "grant_flux")

        page = post(client, "_apply").content.decode()

        assert "/accounts/user/" not in page
        assert "/billing/fluxtransaction/" not in page


class TestPermissions:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_every_permission_but_one_is_refused_at_the_url(self, client, ann, method):
        user = staff(client)
        user.user_permissions.set(Permission.objects.exclude(codename="grant_flux"))

        answer = getattr(client, method)(URL, {**FORM, "_apply": "1"})

        assert answer.status_code == 403
        assert not FluxTransaction.objects.filter(kind="promo").exists()

    def test_strangers_are_sent_to_the_login(self, client, ann):
        client.force_login(accounts.user())

        assert post(client, "_apply").status_code == 302
        assert not FluxTransaction.objects.filter(kind="promo").exists()

    @pytest.mark.parametrize(("names", "is_shown"), [(["grant_flux"], True), ([], False)])
    def test_the_entry_is_in_the_sidebar_only_with_it(self, client, rf, names, is_shown):
        request = rf.get("/")
        request.user = staff(client, *names)

        (item,) = [
            item
            for group in navigation.groups(request)
            for item in group["items"]
            if item["title"] == "Grant Flux"
        ]

        assert (item["link"], item["icon"]) == (URL, "redeem")
        assert item["permission"](request) is is_shown
        assert (URL in client.get(reverse("admin:index")).content.decode()) is is_shown
