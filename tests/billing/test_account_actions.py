"""The buttons on an account's page: each with its own permission, and each refusal on its form."""

from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.urls import reverse

from airi_server.runtime import audit
from airi_server.runtime.options import put
from billing import options
from billing.models import FluxAccount
from tests.billing.test_ledger import credit
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
MIO = "mio_5F-x"
"""An id that Django's own quoting of keys has to be undone for."""
ACTIONS = {
    "grant": "grant_flux",
    "adjust": "adjust_flux",
    "freeze": "freeze_account",
    "thaw": "freeze_account",
}


def url(page, user_id=MIO):
    return reverse(f"admin:billing_fluxaccount_{page}", args=[quote(user_id)])


def staff(client, *names):
    user = accounts.user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def mio():
    make.make_account(100, MIO)


@pytest.fixture
def operator(client, mio):
    return staff(client, "view_fluxaccount", *ACTIONS.values())


def account():
    return FluxAccount.objects.get(pk=MIO)


def audited():
    rows = audit.AuditEntry.objects.order_by("id")
    return [(row.action, row.sentence) for row in rows]


def filled(client, **changes):
    """Return the adjustment form as a browser would post it, the first time."""
    initial = client.get(url("adjust")).context["form"].initial
    return {**initial, "change": "-30", "reason": "double charge", **changes}


def confirmed(client, **changes):
    """Return it as the page would post it that shows what it does."""
    page = client.post(url("adjust"), filled(client, **changes))
    assert page.templates[0].name == "console/confirm.html"
    sent = {field.html_name: field.value() for field in page.context["form"]}
    assert not [value for value in sent.values() if isinstance(value, list)]
    return {**sent, "_confirm": "1"}


class TestAdjust:
    def test_shows_what_it_would_do_before_it_does_it(self, client, operator):
        make.open_one(make.ticket(MIO, make.price()), 40)

        page = client.post(url("adjust"), filled(client))

        shown = page.context["confirmation"]
        assert [(each.label, each.now, each.then, each.by) for each in shown.comparisons] == [
            ("Balance", "100", "70", "\u221230 (÷1.43)"),
            ("Free", "60", "30", "\u221230 (÷2)"),
            ("Held by open requests", "40", "40", ""),
        ]
        facts = dict(shown.facts)
        assert MIO in facts["Whose"]
        assert facts["Reason, which they read"] == "double charge"
        assert not page.context["again"].fields
        assert make.state_of(MIO) == (100, 40)
        assert not audit.AuditEntry.objects.filter(action="billing.adjust_flux").exists()

    def test_goes_back_to_the_form_with_what_was_entered(self, client, operator):
        sent = {**confirmed(client), "_edit": "1"}
        del sent["_confirm"]

        page = client.post(url("adjust"), sent)

        assert page.templates[0].name == "console/form.html"
        assert page.context["form"]["reason"].value() == "double charge"
        assert make.state_of(MIO) == (100, 0)

    def test_posts_once_though_it_is_clicked_twice(self, client, operator):
        form = confirmed(client, change="-60")

        answers = [client.post(url("adjust"), form) for _ in range(2)]

        assert [answer["Location"] for answer in answers] == [url("change")] * 2
        assert make.state_of(MIO) == (40, 0)
        assert audited() == [
            ("billing.adjust_flux", "Adjusted the balance by -60 to 40: double charge")
        ]
        assert "The balance is 40; it was 100." in client.get(url("change")).content.decode()
        assert make.broken_here() == []

    def test_a_moved_ledger_is_shown_and_can_be_decided_on_again(self, client, operator):
        form = confirmed(client)
        credit(MIO, 50, "stripe:evt_1")

        refused = client.post(url("adjust"), form)

        assert refused.status_code == 200
        assert "150 Flux now" in refused.context["notice"]
        assert refused.context["confirmation"].comparisons[0].now == "150"
        assert 'name="expected_seq" value="3"' in refused.content.decode()
        assert make.state_of(MIO) == (150, 0)

        client.post(url("adjust"), {**form, "expected_seq": 3})

        assert make.state_of(MIO) == (120, 0)

    def test_a_ledger_that_moved_while_the_form_was_filled_in_is_told(self, client, operator):
        form = filled(client)
        credit(MIO, 50, "stripe:evt_1")

        page = client.post(url("adjust"), form)

        assert "150 Flux now" in page.context["notice"]
        assert page.context["confirmation"].comparisons[0].then == "120"

    def test_what_is_held_is_refused_on_the_form(self, client, operator):
        make.open_one(make.ticket(MIO, make.price()), 40)

        for step in ({}, {"_confirm": "1"}):
            page = client.post(url("adjust"), filled(client, change="-61", **step))

            assert page.context["form"].non_field_errors() == ["More would be taken than is free."]
            assert page.templates[0].name == "console/form.html"
        assert make.state_of(MIO) == (100, 40)

    @pytest.mark.parametrize("change", ["51", "-51"])
    @pytest.mark.parametrize("again", [{}, {"again-change": ""}, {"again-change": "50"}])
    def test_much_is_entered_twice_whatever_is_sent(self, client, operator, change, again):
        put(options.FLUX_TYPED_TWICE_ABOVE.name, 50, by="tester", at=make.NOW)
        form = confirmed(client, change=change)

        page = client.post(url("adjust"), {**form, **again})

        assert set(page.context["again"].errors) == {"change"}
        assert make.state_of(MIO) == (100, 0)
        answer = client.post(url("adjust"), {**form, "again-change": change})
        assert answer.status_code == 302
        assert make.state_of(MIO) == (100 + int(change), 0)

    def test_what_is_not_much_is_not(self, client, operator):
        put(options.FLUX_TYPED_TWICE_ABOVE.name, 50, by="tester", at=make.NOW)

        assert client.post(url("adjust"), confirmed(client, change="50")).status_code == 302
        assert make.state_of(MIO) == (150, 0)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("change", "0"),
            ("change", ""),
            ("change", "1.5"),
            ("change", "1e400"),
            ("change", str(10**9 + 1)),
            ("change", str(-(10**9) - 1)),
            ("reason", " "),
            ("reason", "a\0b"),
            ("reason", "x" * 501),
            ("expected_seq", "x"),
            ("expected_seq", "9" * 400),
            ("key", ""),
            ("key", "a b"),
            ("key", "x" * 65),
        ],
    )
    def test_a_mistake_is_said_at_its_field(self, client, operator, field, value):
        page = client.post(url("adjust"), filled(client, **{field: value}))

        assert page.status_code == 200
        assert set(page.context["form"].errors) == {field}
        assert make.state_of(MIO) == (100, 0)


class TestFreezeAndThaw:
    def test_need_a_reason_and_leave_it_in_the_audit_log(self, client, operator):
        assert client.post(url("freeze"), {"reason": ""}).context["form"].errors
        assert not account().frozen

        client.post(url("freeze"), {"reason": "stolen card"})
        assert account().frozen

        client.post(url("thaw"), {"reason": "it is theirs"})
        assert not account().frozen
        assert audited() == [
            ("billing.freeze_account", "Froze the account: stolen card"),
            ("billing.freeze_account", "Thawed the account: it is theirs"),
        ]

    def test_holds_that_are_not_covered_are_refused_on_the_form(self, client, operator):
        FluxAccount.objects.filter(pk=MIO).update(frozen=True, held=101)

        page = client.post(url("thaw"), {"reason": "x"})

        assert "hold 101 Flux" in page.context["form"].non_field_errors()[0]
        assert account().frozen


class TestGrant:
    def test_leads_to_the_page_with_the_address_filled_in(self, client, operator):
        user = accounts.user(email="a+b@x.io")
        make.make_account(0, user.pk)

        answer = client.get(url("grant", user.pk))
        orphan = client.get(url("grant"))

        assert answer["Location"] == reverse("admin:grant_flux") + "?email=a%2Bb%40x.io"
        assert orphan["Location"] == reverse("admin:grant_flux")


class TestPermissions:
    @pytest.mark.parametrize(("action", "permission"), ACTIONS.items())
    def test_every_permission_but_one_is_refused_at_the_url(self, client, mio, action, permission):
        user = staff(client)
        user.user_permissions.set(Permission.objects.exclude(codename=permission))

        assert client.get(url(action)).status_code == 403
        assert client.post(url(action), {"reason": "x", "change": "1"}).status_code == 403
        assert make.state_of(MIO) == (100, 0)
        assert not account().frozen

    @pytest.mark.parametrize(("is_frozen", "pointless"), [(False, "thaw"), (True, "freeze")])
    def test_buttons_show_what_can_be_done(self, client, operator, is_frozen, pointless):
        FluxAccount.objects.filter(pk=MIO).update(frozen=is_frozen)

        page = client.get(url("change")).content.decode()

        assert {action for action in ACTIONS if url(action) in page} == set(ACTIONS) - {pointless}

    def test_without_permission_or_account_there_is_no_button(self, client, mio):
        staff(client, "view_fluxaccount", "freeze_account")

        page = client.get(url("change")).content.decode()

        assert {action for action in ACTIONS if url(action) in page} == {"freeze"}
        FluxAccount.objects.filter(pk=MIO).update(deleted_at=make.NOW)
        page = client.get(url("change")).content.decode()
        assert not [action for action in ACTIONS if url(action) in page]

    @pytest.mark.parametrize("action", ACTIONS)
    def test_an_account_that_is_not_there_is_not_found(self, client, operator, action):
        for user_id in ("nobody", "a\0b"):
            assert client.get(url(action, user_id)).status_code == 404
