"""The search box: whole things lead to their row, and to nobody who may not see it."""

from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from accounts.models import User
from airi_server.runtime.audit import AuditEntry
from billing import ledger
from billing.models import FluxTransaction
from llmrouter.configuration.models import RouterModel
from tests.airi_server.console import staff
from tests.factories import accounts, characters, chats
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
SEARCH = reverse("admin:search")


def to(page, *keys):
    quoted = keys if page == "setting" else [quote(key) for key in keys]
    return reverse(f"admin:{page}", args=quoted)


@pytest.fixture
def everything():
    """Return what can be found, by what is pasted."""
    person = accounts.user(email="Mio@example.com")
    key, plaintext = accounts.api_key(owner=person)
    make.make_account(100, person.pk)
    grant_key = f"flux-grant:march:{person.pk}"
    ledger.credit(user_id=person.pk, amount=9, request_id=grant_key, description="", at=make.NOW)
    ticket = make.ticket(person.pk, make.price())
    make.open_one(ticket, 30)
    make.settle_one(make.settlement(ticket, 7))
    llm_key = f"llm:{ticket.id}"
    model = RouterModel.objects.create(name="chat-default", surface="llm")
    entries = dict(FluxTransaction.objects.values_list("request_id", "pk"))
    make.make_account(1, "gone-user")
    said = chats.stored(chats.chat(chat_id="a_5Fb"), 1)
    airi = characters.character(owner=person.pk)
    user = to("accounts_user_change", person.pk)
    request = to("billing_llmrequestlog_change", ticket.id)
    refused = make.refused(person.pk)
    return {
        "plaintext": plaintext,
        "pasted": {
            str(ticket.id): request,
            f" “{ticket.id}”\n": request,
            str(ticket.id).replace("-", ""): request,
            str(refused.pk): to("billing_refusedrequest_change", refused.pk),
            f" {refused.pk}\n": to("billing_refusedrequest_change", refused.pk),
            "mio@EXAMPLE.com": user,
            "<mio@example.com>": user,
            person.pk: user,
            "gone-user": to("billing_fluxaccount_change", "gone-user"),
            key.prefix: to("accounts_apikey_change", key.pk),
            key.public_id: to("accounts_apikey_change", key.pk),
            grant_key: to("billing_fluxtransaction_change", entries[grant_key]),
            llm_key: to("billing_fluxtransaction_change", entries[llm_key]),
            "chat-default": to("llmrouter_routermodel_change", model.pk),
            "a_5Fb": to("chats_chat_change", "a_5Fb"),
            said.pk: to("chats_chatmessage_change", said.pk),
            airi.pk: to("chats_character_change", airi.pk),
            "flux_per_request": to("setting", "FLUX_PER_REQUEST"),
        },
    }


class TestLanding:
    def test_whatever_is_pasted_leads_to_its_row(self, client, everything):
        staff(client, is_superuser=True)

        found = {
            term: client.get(SEARCH, {"q": term}).headers.get("location")
            for term in everything["pasted"]
        }

        assert found == everything["pasted"]

    def test_an_id_is_spelled_as_the_pages_read_it(self, client):
        staff(client, is_superuser=True)
        User.objects.create_user("mio@example.com", id="a_5Fb_c3d", at=make.NOW)

        answer = client.get(SEARCH, {"q": "a_5Fb_c3d"}, follow=True)

        assert answer.status_code == 200
        assert "mio@example.com" in answer.content.decode()

    def test_nobody_lands_where_they_may_not_look(self, client, everything):
        staff(client)

        for term in everything["pasted"]:
            answer = client.get(SEARCH, {"q": term})
            assert answer.status_code == 200
            assert answer.context["hits"] == []

    def test_who_may_see_accounts_but_no_users_lands_on_the_account(self, client, everything):
        staff(client, "billing.view_fluxaccount")

        answer = client.get(SEARCH, {"q": "mio@example.com"})

        assert "/billing/fluxaccount/" in answer.url

    def test_several_rows_of_one_name_are_listed(self, client, everything):
        RouterModel.objects.create(name="flux_per_request", surface="llm")
        staff(client, is_superuser=True)

        answer = client.get(SEARCH, {"q": "FLUX_PER_REQUEST".lower()})

        assert [hit.kind for hit in answer.context["hits"]] == ["Model", "Setting"]

    def test_nothing_found_says_what_can_be_searched_for(self, client):
        staff(client, "accounts.view_user")

        page = client.get(SEARCH, {"q": "nobody <b>"}).content.decode()

        assert "nobody &lt;b" in page
        assert "their e-mail address or id" in page
        assert "x-request-id" not in page


class TestInput:
    @pytest.mark.parametrize(
        "term",
        [
            "", " ", "\x00", "a\x00b", "x" * 401, "@", "a@", "%", "_" * 64, ":", "llm:", "llm:x",
            "flux-grant:", "0" * 32, "sk-airi-", "sk-airi-%%%%%%%%%%%%", "²" * 12, "🦊", "'--",
        ],
    )  # fmt: skip
    def test_nothing_that_is_typed_breaks_it(self, client, everything, term):
        staff(client, is_superuser=True)

        answer = client.get(SEARCH, {"q": term}, follow=True)

        assert answer.status_code == 200
        assert answer.context["hits"] == []

    def test_of_a_whole_key_only_the_public_part_goes_anywhere(self, client, everything):
        staff(client, is_superuser=True)
        secret = everything["plaintext"][20:]

        for pasted in (everything["plaintext"], f'"Bearer {everything["plaintext"]}"'):
            first = client.get(SEARCH, {"q": pasted})
            second = client.get(first.url)

            assert secret not in first.url + first.content.decode()
            assert "/accounts/apikey/" in second.url
        assert not AuditEntry.objects.filter(sentence__contains=secret).exists()

    def test_a_search_is_a_handful_of_indexed_looks(
        self, client, everything, django_assert_max_num_queries
    ):
        staff(client, is_superuser=True)

        with django_assert_max_num_queries(10):
            client.get(SEARCH, {"q": "flux-grant:march:nobody"})
