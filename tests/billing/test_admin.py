"""The operator's pages of billing: evidence is read-only, a new price is a new version."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
EVIDENCE = (FluxAccount, FluxTransaction, LLMRequestLog)


def url(model, page, *args):
    return reverse(f"admin:billing_{model._meta.model_name}_{page}", args=args)


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def root(client):
    return staff(client, is_superuser=True)


@pytest.fixture
def books():
    """Mio has an account, entries and a settled request."""
    make.make_account(100, "mio")
    one = make.ticket("mio", make.price(), input_hash="ab" * 32)
    make.open_one(one, 10)
    make.settle_one(make.settlement(one, 7))
    return one


@pytest.mark.usefixtures("root")
class TestEvidence:
    @pytest.mark.parametrize("model", EVIDENCE)
    def test_is_shown_and_found(self, client, books, model):
        row = model.objects.order_by("pk").first()

        page = client.get(url(model, "changelist"), {"q": "mio"})

        assert page.status_code == client.get(url(model, "change", row.pk)).status_code == 200
        assert set(page.context["cl"].result_list) == set(model.objects.all())
        assert not client.get(url(model, "changelist"), {"q": "nobody"}).context["cl"].result_list

    def test_finds_a_request_by_its_id_and_an_entry_by_its_key(self, client, books):
        found = client.get(url(LLMRequestLog, "changelist"), {"q": f" {books.id} "})
        entry = client.get(url(FluxTransaction, "changelist"), {"q": f"llm:{books.id}"})

        assert [row.pk for row in found.context["cl"].result_list] == [books.id]
        assert [row.amount for row in entry.context["cl"].result_list] == [7]

    @pytest.mark.parametrize("model", [*EVIDENCE, PriceVersion])
    def test_is_changed_by_nobody(self, client, books, model):
        row = model.objects.order_by("pk").first()
        before = list(model.objects.values())
        action = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        fields = {"balance": 10**6, "amount": 1, "flux_per_1k_input": 0}

        answers = [
            client.post(url(model, "delete", row.pk), {"post": "yes"}),
            client.post(url(model, "change", row.pk), fields),
        ]
        assert client.post(url(model, "changelist"), action).status_code == 200
        if model is not PriceVersion:
            answers.append(client.post(url(model, "add"), fields))

        assert {answer.status_code for answer in answers} == {403}
        assert list(model.objects.values()) == before

    @pytest.mark.parametrize("model", EVIDENCE)
    def test_a_row_that_is_not_there_is_not_found(self, client, model):
        for pk in ("nobody", "%00"):
            path = url(model, "changelist") + f"{pk}/change/"
            assert client.get(path).status_code == 302  # to the index, with a message


class TestPermissions:
    def test_a_clerk_may_look_at_what_a_clerk_may_look_at(self, client, books):
        staff(client, "view_fluxaccount")

        assert client.get(url(FluxAccount, "changelist")).status_code == 200
        assert client.get(url(FluxTransaction, "changelist")).status_code == 403
        assert client.get(url(LLMRequestLog, "change", books.id)).status_code == 403

    @pytest.mark.parametrize("model", [*EVIDENCE, PriceVersion])
    def test_strangers_are_sent_to_the_login(self, client, model):
        client.force_login(accounts.user())

        for page in ("changelist", "add"):
            answer = client.get(url(model, page))
            assert (answer.status_code, answer["Location"].split("?")[0]) == (
                302,
                "/admin/login/",
            )
