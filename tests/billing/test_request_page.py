"""The page of a request answers what happened to it; the page of an entry, where it came from."""

from __future__ import annotations

import json
from datetime import timedelta

import psycopg
import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from airi_server.runtime import audit
from billing import charges, ledger
from billing.models import FluxTransaction, LLMRequestLog
from billing.pricing import TokenSource, Usage
from tests.billing.corruption import corrupt
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
SAID = "Rate limit reached for <b>gpt</b> on tokens"
FAILURES = [
    {"upstream": "near", "key": "k-1", "reason": "429", "status": 429, "durationMs": 31,
     "words": SAID},
    {"upstream": "near", "key": "k-2", "reason": "timeout", "status": None, "durationMs": 900},
]  # fmt: skip


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


def page_of(client, row):
    answer = client.get(reverse(f"admin:billing_{row._meta.model_name}_change", args=[row.pk]))
    assert answer.status_code == 200
    return answer


@pytest.fixture
def root(client):
    return staff(client, is_superuser=True)


@pytest.fixture
def paid():
    """Mio's request was answered by the second upstream, after two failures."""
    user = accounts.user(email="mio@example.com")
    make.make_account(100, user.pk)
    ticket = make.ticket(user.pk, make.price(), api_key_id="K" * 12, client_key="once")
    make.open_one(ticket, 40)
    settlement = make.settlement(
        ticket, None, usage=Usage(30, 5, 10, TokenSource.REPORTED), outcome="completed",
        completed=True, upstream="far", upstream_key_id="k-3", attempts=3, failures=FAILURES,
        status=200, duration_ms=1234, ttft_ms=56,
    )  # fmt: skip
    make.settle_one(settlement)
    return make.request_of(ticket)


@pytest.fixture
def orphan():
    make.make_account(100, "mio")
    ticket = make.ticket("mio", make.price())
    make.open_one(ticket, 40, deadline_s=600)
    LLMRequestLog.objects.filter(pk=ticket.id).update(
        deadline_at=timezone.now() - timedelta(minutes=1)
    )
    return make.request_of(ticket)


@pytest.mark.usefixtures("root")
class TestRequest:
    def test_tells_its_attempts_its_tokens_and_its_price(self, client, paid):
        text = page_of(client, paid).content.decode()

        for said in (
            "answered 429", "did not answer in time", "k-1", "k-2", "k-3", "answered",
            "30 prompt (10 of them cached) and 5 completion, reported by the upstream",
            "The whole answer was delivered.", "56 ms", "1234 ms", "once", str(paid.pk),
            "sk-airi-KKKKKKKKKKKK", "mio@example.com", paid.instance_id,
        ):  # fmt: skip
            assert said in text

    def test_says_of_each_attempt_what_the_provider_said(self, client, paid):
        answer = page_of(client, paid)

        attempts = answer.context["attempts"]
        assert [(a["upstream"], a["key"], a["status"], a["duration_ms"]) for a in attempts] == [
            ("near", "k-1", 429, 31), ("near", "k-2", None, 900), ("far", "k-3", 200, None),
        ]  # fmt: skip
        assert [a["words"] for a in attempts] == [SAID, "", ""]
        assert f">{escape(SAID)}</q>" in answer.content.decode()

    def test_one_that_began_to_answer_is_listed_once(self, client, paid):
        broken = {"upstream": "far", "key": "k-3", "reason": "broken_off", "words": "overloaded"}
        kept = {"id": paid.pk, "failures": json.dumps([broken])}
        corrupt("UPDATE llm_request_log SET failures = %(failures)s WHERE id = %(id)s", kept)

        (attempt,) = page_of(client, paid).context["attempts"]

        assert attempt["what"] == "began to answer, and reported an error then"
        assert attempt["words"] == "overloaded"

    def test_leads_to_its_entry_user_account_price_and_back(self, client, paid):
        entry = FluxTransaction.objects.get(request_id=f"llm:{paid.pk}")
        text = page_of(client, paid).content.decode()

        for page, key in (
            ("billing_fluxtransaction", entry.pk),
            ("billing_fluxaccount", paid.user_id),
            ("accounts_user", paid.user_id),
            ("billing_priceversion", paid.price_version),
        ):
            assert reverse(f"admin:{page}_change", args=[quote(str(key))]) in text
        back = page_of(client, entry).content.decode()
        assert reverse("admin:billing_llmrequestlog_change", args=[paid.pk]) in back

    def test_computes_the_charge_again_and_says_if_it_differs(self, client, paid):
        fine = page_of(client, paid)
        corrupt("UPDATE llm_request_log SET flux_consumed = 99 WHERE id = %(id)s", {"id": paid.pk})
        wrong = page_of(client, paid)

        assert fine.context["explanation"].computed == paid.flux_charged == 35
        assert "differs" not in fine.content.decode()
        assert "This differs from the 99 Flux" in wrong.content.decode()

    def test_of_a_user_who_is_gone_opens(self, client, orphan):
        assert "no such user any more" in page_of(client, orphan).content.decode()

    @pytest.mark.parametrize("failures", [None, [], {"a": 1}, ["x"], [{}], "text"])
    def test_opens_whatever_was_kept_of_failures(self, client, paid, failures):
        kept = {"id": paid.pk, "failures": None if failures is None else json.dumps(failures)}
        corrupt("UPDATE llm_request_log SET failures = %(failures)s WHERE id = %(id)s", kept)

        assert "What happened" in page_of(client, paid).content.decode()


class TestExplanations:
    @pytest.mark.parametrize(
        ("columns", "computed", "said"),
        [
            ({}, 35, "35 Flux"),
            ({"usage_source": "estimated"}, 50, "flat price of 50"),
            ({"usage_source": "estimated", "outcome": "client_gone"}, 35, "35 Flux"),
            ({"cached_tokens": None}, 35, "30 prompt at 1000 + 5 completion at 1000,"),
            ({"prompt_tokens": None}, None, "not kept"),
            ({"state": "voided", "flux_charged": 0}, 0, "Nothing was delivered"),
            ({"price_version": 999_999}, None, "does not exist"),
        ],
    )
    def test_follow_the_rules_of_pricing(self, paid, columns, computed, said):
        dear = make.price_row(model="dear", flux_per_request=50)
        for name, value in {"price_version": dear.pk, "unbilled": 3, **columns}.items():
            setattr(paid, name, value)

        (explained,) = charges.explain([paid])

        assert explained.computed == computed
        assert explained.asked == paid.flux_charged + 3
        assert explained.price == (dear if paid.price_version == dear.pk else None)
        assert said in " ".join(explained.steps)

    @pytest.mark.parametrize(
        ("minimum", "said", "computed"),
        [(233, (), 233), (900, ("The minimum of this price is 900.",), 900)],
    )
    def test_name_each_kind_of_tokens_with_its_price(self, paid, minimum, said, computed):
        rates = {"input": "1.5", "output": "40", "cached": "0.25"}
        row = make.price_row(
            model="dear",
            minimum_flux=minimum,
            **{f"flux_per_1k_{name}": rate for name, rate in rates.items()},
        )
        for name, value in {
            "price_version": row.pk, "prompt_tokens": 30_000, "cached_tokens": 10_000,
            "completion_tokens": 5_000,
        }.items():  # fmt: skip
            setattr(paid, name, value)

        (explained,) = charges.explain([paid])

        assert explained.steps == (
            (
                "20,000 prompt at 1.5 + 10,000 cached at 0.25 + 5,000 completion at 40, "
                "for each 1,000 tokens: 232.5 Flux, rounded up 233."
            ),
            *said,
            f"Charge: {computed} Flux.",
        )
        assert (explained.price, explained.computed, explained.asked) == (row, computed, 35)
        assert not explained.agrees


class TestSettleNow:
    def test_ends_an_orphan_and_leaves_a_row(self, client, orphan):
        user = staff(client, "view_llmrequestlog", "settle_requests")
        address = reverse("admin:billing_llmrequestlog_settle", args=[orphan.pk])
        assert address in page_of(client, orphan).content.decode()

        asked = client.get(address)
        answer = client.post(address, {"_apply": ""})

        assert "40 Flux is released" in asked.content.decode()
        assert answer.status_code == 302
        orphan.refresh_from_db()
        assert (orphan.state, orphan.outcome, make.state_of("mio")) == (
            "voided", "orphaned", (100, 0),
        )  # fmt: skip
        (entry,) = audit.of(audit.Subject.of(orphan))
        assert (entry.actor, entry.action) == (user.email, "billing.settle_requests")

    def test_a_second_click_changes_nothing(self, client, orphan):
        staff(client, "view_llmrequestlog", "settle_requests")
        address = reverse("admin:billing_llmrequestlog_settle", args=[orphan.pk])

        for _ in range(2):
            assert client.post(address, {"_apply": ""}).status_code == 302

        assert len(audit.of(audit.Subject.of(orphan))) == 1

    def test_is_not_offered_for_what_is_under_way_or_ended(self, client, paid, orphan):
        staff(client, "view_llmrequestlog", "settle_requests")
        LLMRequestLog.objects.filter(pk=orphan.pk).update(
            deadline_at=timezone.now() + timedelta(minutes=1)
        )

        alive = f"airi {orphan.instance_id}"
        with psycopg.connect(**connection.get_connection_params(), application_name=alive):
            for row in (paid, orphan):
                address = reverse("admin:billing_llmrequestlog_settle", args=[row.pk])
                assert address not in page_of(client, row).content.decode()
                assert client.post(address, {"_apply": ""}).status_code == 302
        assert LLMRequestLog.objects.get(pk=orphan.pk).state == "open"

    def test_needs_its_permission(self, client, orphan):
        staff(client, "view_llmrequestlog")
        address = reverse("admin:billing_llmrequestlog_settle", args=[orphan.pk])

        assert address not in page_of(client, orphan).content.decode()
        assert client.post(address, {"_apply": ""}).status_code == 403
        assert LLMRequestLog.objects.get(pk=orphan.pk).state == "open"


@pytest.mark.usefixtures("root")
class TestEntry:
    def test_names_what_it_reverses_and_what_reverses_it(self, client):
        make.make_account(100, "mio")
        original = FluxTransaction.objects.get(user_id="mio", kind="credit")
        ledger.reverse(
            user_id="mio", user_seq=original.user_seq, request_id="r", description="", at=make.NOW
        )
        reversal = FluxTransaction.objects.get(kind="reversal")

        assert page_of(client, original).context["reversed_by"] == reversal
        assert page_of(client, reversal).context["reverses"] == original

    def test_says_who_granted(self, client):
        giver = accounts.user(email="giver@example.com")
        make.make_account(0, "mio")
        ledger.grant(
            user_id="mio", amount=5, request_id="g:mio", description="sorry", by=giver.pk,
            at=make.NOW,
        )  # fmt: skip
        entry = FluxTransaction.objects.get(kind="promo")

        text = page_of(client, entry).content.decode()

        assert "giver@example.com" in text
        assert "+5 (from " in text
        assert "issuedByUserId" in text
