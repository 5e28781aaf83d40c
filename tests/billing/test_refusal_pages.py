"""Refused requests in the console: found by whatever an operator has, and explained on a page."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from airi_server.kernel import ids
from billing.models import RefusedRequest
from tests.console.rows import client_of
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
SEE = ("billing.view_refusedrequest", "billing.view_llmrequestlog", "accounts.view_user")
LIST = "admin:billing_refusedrequest_changelist"


@pytest.fixture
def client():
    return client_of(*SEE, is_staff=True)


@pytest.fixture
def refused():
    """Mio lacked Flux an hour ago and a model a minute ago; Ria waited for a model that rests."""
    now = timezone.now()
    mio = accounts.user(email="mio@example.com")
    key, plaintext = accounts.api_key(owner=mio)
    made = {
        "flux": make.refused(mio.pk, now - timedelta(minutes=70), api_key_id=key.public_id),
        "model": make.refused(
            mio.pk, now - timedelta(minutes=1), model="none", status=400, code="unknown_model",
            message="There is no model none.",
        ),
        "rests": make.refused(
            "ria", now, model="chat-b", status=502, code="BAD_GATEWAY", api_key_id="R" * 12
        ),
    }  # fmt: skip
    return made, mio, plaintext


def found(client, made, **query):
    rows = client.get(reverse(LIST), query).context["cl"].result_list
    names = {row.pk: name for name, row in made.items()}
    return [names[row.pk] for row in rows]


class TestList:
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({}, ["rests", "model", "flux"]),
            ({"model": "chat-b"}, ["rests"]),
            ({"code": "PAYMENT_REQUIRED"}, ["flux"]),
            ({"status": "400"}, ["model"]),
            ({"status": "4000000000000"}, []),
            ({"status": "²"}, []),
            ({"user": "ria"}, ["rests"]),
            ({"user": "ria", "code": "unknown_model"}, []),
            ({"key": "R" * 12}, ["rests"]),
            ({"key": "sk-airi-" + "R" * 12}, ["rests"]),
            ({"key": "sk-airi-" + "R" * 12 + "s" * 40}, ["rests"]),
            ({"last": "1h"}, ["rests", "model"]),
            ({"to": "2001-01-01T00:00"}, []),
            ({"q": "ria"}, ["rests"]),
            ({"q": "mio@example.com"}, ["model", "flux"]),
            ({"q": "nobody@example.com"}, []),
            ({"q": "unknown"}, []),
            ({"after": "nonsense"}, ["rests", "model", "flux"]),
        ],
    )
    def test_is_narrowed(self, client, refused, query, names):
        assert found(client, refused[0], **query) == names

    def test_finds_an_id_and_a_key(self, client, refused):
        made, _, plaintext = refused

        assert found(client, made, q=f" {made['model'].pk} ") == ["model"]
        assert found(client, made, q=plaintext) == ["flux"]

    def test_has_no_row_of_others_when_there_is_none(self, client):
        page = client.get(reverse(LIST)).content.decode()

        assert "No refused requests here" in page
        assert "kept for seven days" in page


class TestPage:
    def test_says_who_was_told_what(self, client, refused):
        made, mio, _ = refused
        row = made["flux"]

        page = client.get(reverse("admin:billing_refusedrequest_change", args=[row.pk]))

        said = page.content.decode()
        for part in (
            "402", "PAYMENT_REQUIRED", "Insufficient flux", "mio@example.com", mio.pk,
            f"sk-airi-{row.api_key_id}", "chat-default", str(row.pk),
            "Nothing: it was refused before it was opened",
        ):  # fmt: skip
            assert part in said
        assert page.context["plan_url"].startswith(reverse("admin:llmrouter_plan"))

    def test_of_a_model_there_is_not_leads_to_no_plan(self, client, refused):
        row = refused[0]["model"]

        page = client.get(reverse("admin:billing_refusedrequest_change", args=[row.pk]))

        assert page.context["plan_url"] == ""
        assert "none</code>" in page.content.decode()


class TestPageOfTheRequest:
    def test_leads_on_where_the_request_was_refused(self, client, refused):
        row = refused[0]["rests"]
        asked = reverse("admin:billing_llmrequestlog_change", args=[row.pk])

        answer = client.get(asked, follow=True)

        shown = reverse("admin:billing_refusedrequest_change", args=[row.pk])
        assert answer.redirect_chain == [(shown, 302)]
        assert f"Request {row.pk} was refused before it was opened." in answer.content.decode()

    def test_says_no_more_to_who_may_not_see_refusals(self, refused):
        clerk = client_of("billing.view_llmrequestlog", is_staff=True)
        asked = reverse("admin:billing_llmrequestlog_change", args=[refused[0]["rests"].pk])

        answer = clerk.get(asked, follow=True)

        assert answer.redirect_chain == [(reverse("admin:billing_llmrequestlog_changelist"), 302)]
        assert "was refused before it was opened." in answer.content.decode()

    def test_of_no_request_at_all_is_as_before(self, client):
        for missing in (ids.uuid7(), "nonsense"):
            asked = reverse("admin:billing_llmrequestlog_change", args=[missing])

            assert client.get(asked).url == reverse("admin:index")


def test_nobody_changes_one_by_hand():
    permissions = RefusedRequest._meta.default_permissions

    assert tuple(permissions) == ("view",)
