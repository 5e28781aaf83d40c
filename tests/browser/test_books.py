"""The books in a browser: a month of requests to look through, and what ate somebody's Flux."""

from __future__ import annotations

import re

from billing.models import FluxTransaction, LLMRequestLog
from tests.browser.chromium import expect

SEE = (
    "accounts.view_user",
    "accounts.view_apikey",
    "billing.view_fluxaccount",
    "billing.view_fluxtransaction",
    "billing.view_llmrequestlog",
    "billing.export_books",
)


def test_the_last_ten_charges_are_explained(console, shot, used):
    page = console(*SEE, path=f"/admin/billing/fluxaccount/{used.pk}/change/")

    charges = page.locator("table").filter(has_text="Charge").first.locator("tbody tr")
    expect(charges).to_have_count(10)
    debits = FluxTransaction.objects.filter(user_id=used.pk, kind="debit").order_by("-user_seq")
    for place, entry in enumerate(debits[:10]):
        expect(charges.nth(place)).to_contain_text(str(entry.amount))
    shot("charges")

    charges.first.get_by_role("link").first.click()
    expect(page).to_have_url(re.compile("llmrequestlog|fluxtransaction"))


def test_requests_are_looked_through_and_narrowed(console, shot, used):
    page = console(*SEE, path="/admin/billing/llmrequestlog/")
    rows = page.locator("#result_list tbody tr")
    assert rows.count() > 20
    shot("requests")

    page.goto(f"/admin/billing/llmrequestlog/?q={used.email}")

    expect(rows.first).to_contain_text(used.email)
    assert rows.filter(has_text=used.email).count() == rows.count()


def test_a_failed_request_says_what_happened(console, shot, used):
    failed = LLMRequestLog.objects.filter(outcome="failed").order_by("-id")[0]
    page = console(*SEE, path=f"/admin/billing/llmrequestlog/{failed.id}/change/")

    expect(page.get_by_text("BAD_GATEWAY").first).to_be_visible()
    expect(page.get_by_text(str(failed.id)).first).to_be_visible()
    shot("request-failed")


def test_the_ledger_of_a_month(console, shot, used):
    page = console(*SEE, path="/admin/billing/fluxtransaction/")

    expect(page.locator("#result_list tbody tr").first).to_be_visible()
    shot("ledger")
    page.goto("/admin/billing/fluxaccount/")
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    shot("accounts")


def test_the_books_are_checked(console, shot, used):
    page = console(*SEE, "billing.reconcile_books", path="/admin/reconciliation/")

    page.get_by_role("button", name=re.compile("check", re.IGNORECASE)).first.click()

    expect(page.get_by_text(re.compile("agree", re.IGNORECASE)).first).to_be_visible()
    shot("reconciliation")
