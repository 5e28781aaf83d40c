"""The Grant Flux page: asked, previewed, applied; a second click pays nobody twice."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from airi_server.admin import navigation
from airi_server.runtime import audit
from billing import grants
from billing.models import FluxGrant, FluxGrantPerson, FluxTransaction
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
URL = reverse("admin:grant_flux")
GRANTS = reverse("admin:billing_fluxgrant_changelist")
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
    """Post the form and go where it leads."""
    return client.post(URL, {**FORM, **changes, button: "1"}, follow=True)


def hidden(page):
    """Return the fields of the hidden form that a page carries, as a browser would post them."""
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode())
    return {name: html.unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


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
            ({"emails": ""}, "emails", "at least one"),
            ({"emails": " ,;\n"}, "emails", "at least one"),
            ({"emails": " \n"}, "emails", "at least one"),
            ({"emails": "ann@x.io\nbob"}, "emails", "Line 2: This is not an e-mail address: bob."),
            ({"emails": "c\x07@x.io"}, "emails", "an e-mail address: c⟨U+0007⟩@x.io."),
            ({"emails": "a" * 300 + "@x.io"}, "emails", "a" * 60 + "…"),
            (
                {"emails": "\n".join(f"a{n}@x.io" for n in range(201))},
                "emails",
                "At most 200 addresses at once; these are 201.",
            ),
            ({"emails": "a\0b@x.io"}, "emails", "Null characters"),
            ({"emails": "x" * 100_001}, "emails", "at most"),
            ({"emails": "bob\n" * 99}, "emails", "Line 1: This is not an e-mail address: bob."),
            ({"emails": "ann@x.io 5"}, "amount", "has amounts of its own"),
            ({"emails": "ann@x.io 5\nbob@x.io", "amount": ""}, "amount", "Line 2 of the list has"),
            ({"amount": ""}, "amount", "How much does each person get?"),
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
class TestList:
    def upload(self, client, content, **changes):
        file = SimpleUploadedFile("people.csv", content, content_type="text/csv")
        form = {**FORM, "emails": "", "amount": "", **changes, "file": file, "_preview": "1"}
        return client.post(URL, form, follow=True)

    @pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_is_uploaded_with_an_amount_for_each(self, client, ann, coding):
        accounts.user(email="bob@x.io")
        table = "name,E-mail,amount\r\nAnn,ann@x.io,5\r\nBob,bob@x.io,7\r\n"

        page = self.upload(client, table.encode(coding))
        said = text_of(page)
        paid = client.post(URL, {**hidden(page), "_apply": "1"}, follow=True)

        assert "Each their own amount for 2 people: 12 Flux in all" in said
        assert "Not read: the column “name”" in said
        assert "ann@x.io 5 bob@x.io 7" in said
        assert "2 granted, 12 Flux in all" in text_of(paid)
        assert make.state_of(ann) == (5, 0)
        assert FluxGrant.objects.get().amount is None

    @pytest.mark.parametrize(
        ("content", "changes", "said"),
        [
            ("email\nänn@x.io".encode("latin-1"), {}, "This file is not UTF-8"),
            (b"email,amount\nann@x.io,x", {}, "Line 2: The amount has to be a whole number"),
            (b"email\n\n", {}, "Name at least one address."),
            (b"", {}, "empty"),
            (b"ann@x.io\0", {}, "Null characters"),
            (b"x" * 100_001, {}, "longer than 100,000 characters"),
            (b"x" * 400_001, {}, "longer than 100,000 characters"),
            (b"ann@x.io", {"emails": "bob@x.io"}, "Paste a list or upload one, not both."),
        ],
    )
    def test_that_cannot_be_read_is_refused_at_its_field(self, client, content, changes, said):
        form = self.upload(client, content, amount="5", **changes).context["form"]

        assert said in form.errors["file"][0]

    def test_of_few_mistakes_names_each_and_of_many_the_first(self, client):
        few = post(client, "_preview", emails="a\n" * 3).context["form"]
        many = post(client, "_preview", emails="a\n" * 33).context["form"]

        assert [each[:7] for each in few.errors["emails"]] == ["Line 1:", "Line 2:", "Line 3:"]
        assert len(many.errors["emails"]) == 21
        assert many.errors["emails"][-1] == "And 13 more."


@pytest.mark.usefixtures("operator")
class TestPreview:
    def test_is_a_page_with_an_address(self, client, ann):
        answer = client.post(URL, {**FORM, "_preview": "1"})

        assert answer.status_code == 302
        first, second = client.get(answer["Location"]), client.get(answer["Location"])
        assert first.status_code == 200
        assert text_of(first) == text_of(second)

    def test_that_is_not_there_leads_to_the_form(self, client):
        page = client.get(reverse("admin:grant_flux_preview", args=["gone"]), follow=True)

        assert page.redirect_chain == [(URL, 302)]
        assert "nobody was paid by it" in text_of(page)

    def test_of_somebody_else_is_not_there(self, client, ann):
        theirs = post(client, "_preview").redirect_chain[-1][0]
        staff(client, "grant_flux")

        assert client.get(theirs).status_code == 302

    def test_is_kept_for_a_few_tabs(self, client, ann):
        tabs = [post(client, "_preview").redirect_chain[-1][0] for _ in range(4)]

        assert [client.get(tab).status_code for tab in tabs] == [302, 200, 200, 200]

    def test_shows_everybody_and_the_total_and_writes_nothing(self, client, ann):
        make.make_account(5, accounts.user(email="cyd@x.io").pk, deleted_at=make.NOW)

        page = post(client, "_preview", emails=FORM["emails"] + "; Cyd <cyd@x.io>")

        said = text_of(page)
        assert "100 Flux for each of 1 person: 100 Flux in all" in said
        assert "Of 4 addresses, 1: named before in this list; 1: no user has this address;" in said
        assert "Will be granted: 1" in said
        assert "No user has this address: 1 E-mail no@x.io" in said
        assert "deleted: 1 E-mail cyd@x.io pasted as Cyd &lt;cyd@x.io&gt;" in said
        assert "Named before in this list: 1 E-mail ANN@x.io" in said
        assert reverse("admin:accounts_user_change", args=[ann.replace("_", "_5F")]) in (
            page.content.decode()
        )
        assert not FluxTransaction.objects.filter(kind="promo").exists()
        assert not FluxGrant.objects.exists()

    def test_shows_what_cannot_be_seen(self, client, ann):
        page = post(client, "_preview", emails="\u200bann@x.io")

        assert "ann@x.io pasted as ⟨U+200B⟩ann@x.io" in text_of(page)

    def test_carries_the_form_that_applies_it(self, client, ann):
        page = post(client, "_preview", description='<b>"hi"</b> & co')

        carried = hidden(page)
        assert carried["emails"] == FORM["emails"]
        assert (carried["amount"], carried["key"]) == ("100", "k")
        assert carried["description"] == '<b>"hi"</b> & co'

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
        page = post(client, "_preview")

        draft = page.redirect_chain[-1][0].rstrip("/").rsplit("/", 1)[1]
        assert f'href="{URL}?draft={draft}"' in page.content.decode()
        form = client.get(URL, {"draft": draft}).context["form"]
        assert (form["emails"].value(), form["key"].value()) == (FORM["emails"], "k")
        assert not FluxTransaction.objects.exists()

    def test_of_200_takes_few_statements(self, client, django_assert_max_num_queries):
        emails = "\n".join(accounts.user().email for _ in range(200))

        # session, user, permissions (2); users, closed accounts, keys used
        # twice, for the form leads to its preview; the session is kept in between
        with django_assert_max_num_queries(16):
            page = post(client, "_preview", emails=emails)

        assert len(page.context["plan"].will_grant) == 200


class TestApply:
    def test_pays_what_was_previewed_and_leads_to_each_outcome(self, client, operator, ann):
        carried = hidden(post(client, "_preview"))

        page = client.post(URL, {**carried, "_apply": "1"}, follow=True)

        entry, grant = FluxTransaction.objects.get(kind="promo"), FluxGrant.objects.get()
        assert page.redirect_chain == [
            (reverse("admin:billing_fluxgrant_change", args=[grant.pk]), 302)
        ]
        said = text_of(page)
        assert "1 granted now, 100 Flux in all" in said
        assert "1 granted, 100 Flux in all; 2 refused" in said
        assert f"ann@x.io 100 Granted 100 {entry.pk}" in said
        assert "no@x.io No user has this address" in said
        assert "ANN@x.io Named before in this list" in said
        link = reverse("admin:billing_fluxtransaction_change", args=[entry.pk])
        assert f'href="{link}"' in page.content.decode()
        assert (entry.metadata or {})["issuedByUserId"] == operator.pk
        assert audit.AuditEntry.objects.get().actor_id == operator.pk
        assert make.broken_here() == []

    def test_the_page_of_a_grant_says_the_same_whenever_it_is_opened(self, client, operator, ann):
        page = post(client, "_apply").redirect_chain[-1][0]

        first, second = client.get(page), client.get(page)

        assert text_of(first) == text_of(second)
        assert make.state_of(ann) == (100, 0)

    def test_again_leads_to_the_same_and_pays_nobody(self, client, operator, ann):
        first = post(client, "_apply").redirect_chain

        again = post(client, "_apply")

        assert again.redirect_chain == first
        assert "0 granted now, 0 Flux in all; 1 had it already by this key" in text_of(again)
        assert make.state_of(ann) == (100, 0)
        assert audit.AuditEntry.objects.count() == 1
        assert FluxGrantPerson.objects.count() == 3

    def test_a_failure_is_shown(self, client, operator, ann):
        full = accounts.user(email="full@x.io").pk
        make.make_account(2**63 - 10, full)

        said = text_of(post(client, "_apply", emails="full@x.io ann@x.io"))

        assert "1 granted now, 100 Flux in all; 1 failed" in said
        assert "full@x.io Failed: Unable to credit" in said
        assert "bigint" not in said

    def test_who_failed_can_be_tried_again(self, client, operator, ann, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(grants, "BUDGET_S", -1.0)
            first = text_of(post(client, "_apply", emails="Ann <ann@x.io>, no@x.io"))
        grant = FluxGrant.objects.get()

        again = text_of(client.post(URL, {"_again": grant.pk}, follow=True))
        nobody = text_of(client.post(URL, {"_again": grant.pk}, follow=True))

        assert "0 granted, 0 Flux in all; 1 refused; 1 failed" in first
        assert "Try again" in first
        assert "1 granted now, 100 Flux in all" in again
        assert "1 granted, 100 Flux in all; 1 refused." in again
        assert again.count("ann@x.io pasted as Ann &lt;ann@x.io&gt;") == 2
        assert "Try again" not in again
        assert "Nobody is left to pay" in nobody
        assert make.state_of(ann) == (100, 0)

    @pytest.mark.parametrize("grant", ["", "x", "1", "9" * 30, "-1"])
    def test_a_grant_that_is_not_there_is_not_tried_again(self, client, operator, grant):
        page = client.post(URL, {"_again": grant}, follow=True)

        assert "There is no such grant." in text_of(page)

    def test_of_200_people_fits_the_request(self, client, operator):
        emails = "\n".join(accounts.user().email for _ in range(200))

        with CaptureQueriesContext(connection) as captured:
            page = post(client, "_apply", emails=emails)

        assert len(page.context["paid"]) == 200
        assert len(captured) <= 30 + 200 * 15
        assert make.broken_here() == []

    def test_links_nowhere_the_operator_may_not_look(self, client, ann):
        staff(client, "grant_flux")

        page = post(client, "_apply").content.decode()

        assert "/accounts/user/" not in page
        assert "/billing/fluxtransaction/" not in page


@pytest.mark.usefixtures("operator")
class TestGrants:
    def test_are_listed_with_who_and_how_much(self, client, operator, ann):
        post(client, "_apply")
        post(client, "_apply", key="other", amount="7", emails="ann@x.io")

        said = text_of(client.get(GRANTS))

        assert f"hi 7 1 0 {operator.email} other" in said
        assert f"hi 100 1 2 {operator.email} k" in said

    @pytest.mark.parametrize(
        ("term", "shown"),
        [("k", ["k"]), ("ann@x.io", ["k", "l"]), ("NO@x.io", ["k"]), ("ann", []), ("ann@y.io", [])],
    )
    def test_are_found_by_key_and_by_who_is_named(self, client, ann, term, shown):
        post(client, "_apply")
        post(client, "_apply", key="l", emails="ann@x.io")

        rows = client.get(GRANTS, {"q": term}).context["cl"].result_list

        assert sorted(row.key for row in rows) == shown

    def test_are_found_by_the_search_box_and_from_their_entries(self, client, ann):
        page = post(client, "_apply").redirect_chain[-1][0]
        entry = FluxTransaction.objects.get(kind="promo").pk

        found = client.get(reverse("admin:search"), {"q": "k"})
        shown = client.get(reverse("admin:billing_fluxtransaction_change", args=[entry]))

        assert found["Location"] == page
        assert f'href="{page}"' in shown.content.decode()

    def test_of_a_page_take_few_statements(self, client, ann, django_assert_max_num_queries):
        for number in range(30):
            post(client, "_apply", key=f"k{number}", emails="ann@x.io")

        # session, user, permissions (2); grants, their people, who granted
        with django_assert_max_num_queries(9):
            client.get(GRANTS)


class TestPermissions:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_every_permission_but_one_is_refused_at_the_url(self, client, ann, method):
        user = staff(client)
        user.user_permissions.set(Permission.objects.exclude(codename="grant_flux"))

        answer = getattr(client, method)(URL, {**FORM, "_apply": "1"})

        assert answer.status_code == 403
        assert client.get(reverse("admin:grant_flux_preview", args=["x"])).status_code == 403
        assert not FluxTransaction.objects.filter(kind="promo").exists()

    def test_strangers_are_sent_to_the_login(self, client, ann):
        client.force_login(accounts.user())

        answer = client.post(URL, {**FORM, "_apply": "1"})

        assert answer["Location"].startswith(reverse("admin:login"))
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
