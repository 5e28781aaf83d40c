"""The search box lands on the row of whatever an operator has in hand."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.utils import quote

from accounts.models import APIKey
from billing.models import FluxTransaction, LLMRequestLog
from tests.browser import people
from tests.browser.chromium import Page, expect
from tests.factories import accounts, billing

SEE = (
    "accounts.view_user",
    "accounts.view_apikey",
    "billing.view_fluxaccount",
    "billing.view_fluxtransaction",
    "billing.view_llmrequestlog",
)


@pytest.fixture
def key() -> APIKey:
    """The key of somebody with one settled request."""
    key, _ = accounts.api_key(owner=people.person("mio"))
    billing.make_account(100, key.user_id)
    ticket = billing.ticket(key.user_id, billing.price(), api_key_id=key.public_id)
    billing.open_one(ticket, 10)
    billing.settle_one(billing.settlement(ticket, 5))
    return key


def search(page: Page, term: str) -> None:
    page.keyboard.press("/")
    box = page.get_by_role("searchbox").first
    expect(box).to_be_focused()
    box.fill(term)
    box.press("Enter")


def test_a_slash_and_an_id_land_on_the_request(console, shot, key):
    row = LLMRequestLog.objects.get(user_id=key.user_id)
    page = console(*SEE)

    search(page, f" {row.id} ")

    expect(page).to_have_url(re.compile(f"llmrequestlog/{row.id}/change/"))
    expect(page.get_by_text("chat-default").first).to_be_visible()
    shot("request")


def test_an_address_lands_on_the_user(console, key):
    page = console(*SEE)

    search(page, key.user.email.upper())

    expect(page).to_have_url(re.compile(f"accounts/user/{quote(key.user_id)}/change/"))


def test_the_public_part_of_a_key_lands_on_the_key(console, key):
    page = console(*SEE)

    search(page, key.prefix)

    expect(page).to_have_url(re.compile(f"accounts/apikey/{key.pk}/change/"))


def test_from_a_request_to_its_entry_and_back(console, shot, key):
    row = LLMRequestLog.objects.get(user_id=key.user_id)
    entry = FluxTransaction.objects.get(user_id=key.user_id, kind="debit")
    page = console(*SEE, path=f"/admin/billing/llmrequestlog/{row.id}/change/")

    page.locator(
        f"#main a[href*='fluxtransaction/{entry.pk}/'], a[href*='fluxtransaction/{entry.pk}/']"
    ).first.click()

    expect(page).to_have_url(re.compile(f"fluxtransaction/{entry.pk}/change/"))
    shot("entry")
    page.locator(f"a[href*='llmrequestlog/{row.id}/']").first.click()
    expect(page).to_have_url(re.compile(f"llmrequestlog/{row.id}/change/"))


def test_what_is_not_there_is_said_with_what_is(console, shot):
    page = console(*SEE)

    search(page, "nobody@example.com")

    expect(page.get_by_text("Nothing that you may see is called")).to_be_visible()
    expect(page.get_by_text("their e-mail address or id").first).to_be_visible()
    shot("search-nothing")
