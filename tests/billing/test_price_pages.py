"""The page of a new price: what it would change, entered twice if it is much, published once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from airi_server.pages.confirm import TIMES
from airi_server.runtime import audit
from airi_server.runtime.options import put
from billing import options, prices
from billing.models import PriceVersion
from tests.factories import accounts
from tests.factories import billing as make
from tests.factories import llmrouter as routers

pytestmark = pytest.mark.django_db
ADD = reverse("admin:billing_priceversion_add")
MODEL = "chat-default"
PRICE = {
    "model": MODEL,
    "flux_per_1k_input": "1.5",
    "flux_per_1k_output": "2",
    "flux_per_1k_cached": "0.500000",
    "flux_per_request": "5",
    "minimum_flux": "1",
    "note": "the provider's new list",
}


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def root(client):
    return staff(client, is_superuser=True)


@pytest.fixture
def routed():
    """Route the model that most prices here are of, and another one."""
    tree = routers.chat_tree(
        **{name: routers.chat_model(name=name) for name in (MODEL, "chat-large")}
    )
    return routers.published(tree)


def shown(client, **changes):
    """Return the page that says what a price would do, from a form that was just opened."""
    opened = client.get(ADD, {"model": changes.get("model", MODEL)}).context["form"]
    values = {field.html_name: field.value() for field in opened}
    sent = {name: value for name, value in values.items() if value not in (None, False)}
    return client.post(ADD, {**sent, **PRICE, **changes})


def sent_by(page):
    """Return what the page of a price would post when its button is pressed."""
    assert page.templates[0].name == "console/confirm.html", page.context["form"].errors
    values = {field.html_name: field.value() for field in page.context["form"]}
    assert not [value for value in values.values() if isinstance(value, list)]
    return {name: "" if value is None else value for name, value in values.items()} | {
        "_confirm": "1"
    }


def publish(client, **changes):
    return client.post(ADD, sent_by(shown(client, **changes)))


def compared(page):
    rows = page.context["confirmation"].comparisons
    return {row.label.split(",")[0]: (row.now, row.then, row.by) for row in rows}


@pytest.mark.usefixtures("routed")
class TestPublishing:
    def test_is_a_version_with_its_author_and_reason(self, client, root):
        answer = publish(client)

        version = PriceVersion.objects.get()
        page = reverse("admin:billing_priceversion_change", args=[version.pk])
        assert (answer.status_code, answer["Location"]) == (302, page)
        price = prices.of_version(version.pk)
        assert (price.input, price.output, price.cached) == (1_500_000, 2_000_000, 500_000)
        assert (price.flat, price.minimum, price.usd_input) == (5, 1, None)
        assert (version.created_by, version.note) == (root.get_username(), PRICE["note"])
        assert [entry.actor for entry in audit.of(audit.Subject.of(version))] == [root.email]
        told = client.get(page).content.decode()
        assert f"{version} is in force" in told
        assert f"{ADD}?model={MODEL}" in told

    @pytest.mark.parametrize(
        "mistake",
        [
            {"flux_per_1k_input": "-1"},
            {"flux_per_1k_input": "0.0000001"},
            {"flux_per_1k_output": "NaN"},
            {"flux_per_1k_output": "1e40"},
            {"flux_per_request": "1.5"},
            {"minimum_flux": "-1"},
            {"usd_per_1m_input": "much"},
            {"note": ""},
            {"model": "x" * 201},
            {"model": "a\0b"},
            {"seen": "x"},
            {"seen": "9" * 400},
        ],
    )
    @pytest.mark.parametrize("step", [{}, {"_confirm": "1"}])
    def test_a_mistake_is_said_at_its_field(self, client, root, mistake, step):
        page = client.post(ADD, {**PRICE, **mistake, **step})

        assert page.status_code == 200
        assert set(page.context["form"].errors) == set(mistake)
        assert not PriceVersion.objects.exists()

    def test_the_form_begins_with_the_price_in_force(self, client, root):
        row = make.price_row(model="m", flux_per_1k_input=Decimal("3.25"), flux_per_request=9)

        def initial(model):
            return client.get(ADD, {"model": model}).context["form"].initial

        known = initial("m")
        assert (known["flux_per_1k_input"], known["flux_per_request"]) == (Decimal("3.25"), 9)
        assert (known["seen"], known["seen_model"]) == (row.pk, "m")
        fresh = initial("new\0")
        assert (fresh["model"], fresh["flux_per_1k_output"], fresh["seen"]) == ("new", 1, None)
        make.price_row(model="", flux_per_1k_output=Decimal(7))
        assert initial("new")["flux_per_1k_output"] == 7


@pytest.mark.usefixtures("routed", "root")
class TestConfirming:
    def test_nothing_is_published_before(self, client):
        assert shown(client).status_code == 200
        assert not PriceVersion.objects.exists()

    def test_says_what_is_now_and_what_would_be(self, client):
        make.price_row(
            flux_per_1k_input=1, flux_per_1k_output=Decimal("2.5"), flux_per_1k_cached=1,
            flux_per_request=0, minimum_flux=1,
        )  # fmt: skip

        page = shown(client, usd_per_1m_output="1500")

        rows = compared(page)
        assert rows["Prompt"] == ("1", "1.5", f"+0.5 ({TIMES}1.5)")
        assert rows["Completion"] == ("2.5", "2", "\u22120.5 (÷1.25)")
        assert rows["Whole answer without usage"] == ("0", "5", "+5")
        assert rows["Least of any answer"] == ("1", "1", "")
        assert rows["Provider's completion"] == ("not known", "1,500", "")
        assert "Replaces v" in page.content.decode()

    def test_says_what_the_default_is_where_there_is_no_own_price(self, client):
        page = shown(client)

        assert compared(page)["Prompt"] == ("1", "1.5", f"+0.5 ({TIMES}1.5)")
        assert "costs what the default does" in page.context["confirmation"].sentence

    def test_says_what_the_newest_requests_would_have_cost(self, client):
        make.make_account(10**6, "mio")
        price = make.price(**dict.fromkeys(prices.FLUX[:3], Decimal(1)), minimum_flux=1)
        for tokens in (1_000, 2_500):
            one = make.ticket("mio", price)
            make.open_one(one, 10_000)
            make.settle_one(make.settlement(one, tokens))
        other = make.ticket("mio", price, model="chat-large")  # not compared
        make.open_one(other, 10)
        make.settle_one(make.settlement(other, 9))

        page = shown(client)

        # 1,000 and 2,500 prompt tokens at 1 are 1 and 3 Flux; at 1.5 they are 2 and 4.
        assert compared(page)["The last 2 requests together"] == ("4", "6", f"+2 ({TIMES}1.5)")
        assert "2 requests of chat-default" in dict(page.context["confirmation"].facts)["Compared"]

    def test_says_that_there_is_nothing_to_compare(self, client):
        assert "Nothing" in dict(shown(client).context["confirmation"].facts)["Compared"]

    def test_the_price_in_force_is_not_published_again(self, client):
        publish(client)

        page = shown(client, note="once more")

        assert page.context["form"].non_field_errors() == [prices.SAME]
        assert PriceVersion.objects.count() == 1


@pytest.mark.usefixtures("routed", "root")
class TestEnteringTwice:
    @pytest.fixture(autouse=True)
    def _in_force(self):
        make.price_row(**dict.fromkeys(prices.FLUX[:3], 1), flux_per_request=5, minimum_flux=1)

    @pytest.mark.parametrize(
        ("rate", "value"),
        [
            ("flux_per_1k_output", "2.01"),
            ("flux_per_1k_input", "0.49"),
            ("flux_per_1k_cached", "0"),
            ("flux_per_request", "11"),
            ("minimum_flux", "3"),
        ],
    )
    @pytest.mark.parametrize("again", [None, "", "2", "nonsense"])
    def test_a_jump_is_entered_twice_whatever_is_sent(self, client, rate, value, again):
        like = {"flux_per_1k_input": "1", "flux_per_1k_cached": "1", rate: value}
        sent = sent_by(shown(client, **like))
        typed = {} if again is None else {f"again-{rate}": again}

        page = client.post(ADD, {**sent, **typed})

        assert set(page.context["again"].errors) == {rate}
        assert PriceVersion.objects.count() == 1
        assert client.post(ADD, {**sent, f"again-{rate}": value}).status_code == 302
        assert PriceVersion.objects.count() == 2

    @pytest.mark.parametrize("value", ["2", "0.5"])
    def test_twice_or_half_is_no_jump(self, client, value):
        changes = {"flux_per_1k_input": value, "flux_per_1k_cached": "1"}

        assert publish(client, **changes).status_code == 302

    def test_nor_is_what_the_provider_charges(self, client):
        page = shown(client, flux_per_1k_cached="1", usd_per_1m_input="99999")

        assert not page.context["again"].fields

    def test_a_charge_above_the_limit_is_entered_twice_however_small_its_change(self, client):
        put(options.FLUX_TYPED_TWICE_ABOVE.name, 5, by="tester", at=make.NOW)

        page = shown(client, flux_per_1k_cached="1", flux_per_request="6")

        assert set(page.context["again"].fields) == {"flux_per_request"}


@pytest.mark.usefixtures("routed")
class TestOnceAndInTurn:
    def test_a_double_click_makes_one_version(self, client, root):
        sent = sent_by(shown(client))

        answers = [client.post(ADD, sent) for _ in range(3)]

        (version,) = PriceVersion.objects.all()
        page = reverse("admin:billing_priceversion_change", args=[version.pk])
        assert {answer["Location"] for answer in answers} == {page}
        assert len(audit.of(audit.Subject.of(version))) == 1

    def test_the_second_of_two_operators_is_told_and_nothing_is_overwritten(self, client, root):
        sent = sent_by(shown(client))
        theirs = make.price_row(**dict.fromkeys(prices.FLUX[:3], Decimal("1.25")), minimum_flux=1)

        page = client.post(ADD, sent)

        assert page.status_code == 200
        assert f"tester has published {theirs}" in page.context["notice"]
        assert compared(page)["Prompt"] == ("1.25", "1.5", f"+0.25 ({TIMES}1.2)")
        assert list(PriceVersion.objects.all()) == [theirs]

        assert client.post(ADD, {**sent_by(page), "again-flux_per_1k_cached": "0.5",
                                 "again-flux_per_request": "5"}).status_code == 302  # fmt: skip
        assert PriceVersion.objects.count() == 2

    def test_so_is_who_has_only_opened_the_form(self, client, root):
        opened = client.get(ADD, {"model": MODEL}).context["form"]
        theirs = make.price_row()

        page = client.post(
            ADD, {**PRICE, "seen": opened["seen"].value() or "", "seen_model": MODEL}
        )

        assert f"tester has published {theirs}" in page.context["notice"]

    def test_who_has_seen_nothing_publishes_over_nobody(self, client, root):
        make.price_row()
        bare = {**PRICE, "_confirm": "1"}
        typed = {f"again-{name}": PRICE[name] for name in prices.FLUX}

        page = client.post(ADD, {**bare, **typed})

        assert page.context["notice"]
        assert PriceVersion.objects.count() == 1

    def test_what_was_seen_of_another_model_counts_for_none(self, client, root):
        sent = sent_by(shown(client))

        page = client.post(ADD, {**sent, "model": "chat-large"})

        assert page.context["notice"]
        assert not PriceVersion.objects.exists()


@pytest.mark.usefixtures("routed", "root")
class TestModels:
    @pytest.mark.parametrize("step", [{}, {"_confirm": "1"}])
    def test_one_that_does_not_exist_is_refused_with_the_names_near_it(self, client, step):
        page = client.post(ADD, {**PRICE, "model": "Chat-Defualt", **step})

        (fault,) = page.context["form"].errors["model"]
        assert fault == "No model is called “Chat-Defualt”. Near it: chat-default."
        assert not PriceVersion.objects.exists()

    def test_where_none_is_near_all_are_named(self, client):
        page = client.post(ADD, {**PRICE, "model": "zzz"})

        assert page.context["form"].errors["model"] == [
            "No model is called “zzz”. There are: chat-default, chat-large."
        ]

    def test_one_that_comes_later_is_taken_at_ones_word(self, client):
        page = shown(client, model="chat-next", is_early="on")

        assert "not routed yet" in dict(page.context["confirmation"].facts)["Model"]
        assert client.post(ADD, sent_by(page)).status_code == 302
        assert PriceVersion.objects.get().model == "chat-next"

    @pytest.mark.parametrize("name", ["auto", "Auto", "a\u200bb"])
    def test_what_can_never_be_one_is_not(self, client, name):
        page = client.post(ADD, {**PRICE, "model": name, "is_early": "on"})

        assert "No model can be called" in page.context["form"].errors["model"][0]

    def test_the_default_has_no_name(self, client):
        assert publish(client, model="").status_code == 302
        assert PriceVersion.objects.get().model == ""


class TestPermissions:
    def test_every_permission_but_one_publishes_no_price(self, client, routed):
        user = staff(client)
        user.user_permissions.set(Permission.objects.exclude(codename="add_priceversion"))

        for step in ({}, {"_confirm": "1", "seen_model": MODEL}):
            assert client.post(ADD, {**PRICE, **step}).status_code == 403
        assert client.get(ADD).status_code == 403
        assert not PriceVersion.objects.exists()
        user.user_permissions.add(Permission.objects.get(codename="add_priceversion"))
        assert publish(client).status_code == 302
