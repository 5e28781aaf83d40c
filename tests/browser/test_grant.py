"""Granting Flux in a browser: preview, apply, once more, two clicks at once, and who may."""

from __future__ import annotations

import re

import pytest

from accounts.models import User
from billing.models import FluxTransaction
from tests.browser import people
from tests.browser.chromium import Page, Watch, expect

GRANT = "billing.grant_flux"


@pytest.fixture
def testers() -> list[User]:
    return [people.person(name) for name in ("mio", "ren", "yui")]


def credits_of(*users: User) -> list[tuple[str, int]]:
    found = FluxTransaction.objects.filter(
        user_id__in=[user.pk for user in users], amount__gt=0
    ).order_by("id")
    return [(each.user_id, each.amount) for each in found]


def fill(page: Page, *emails: str, amount: int = 250) -> str:
    """Fill in the form and return the key that it came with."""
    page.get_by_label("E-mail addresses").fill("\n".join(emails))
    page.get_by_label("Flux for each person").fill(str(amount))
    page.get_by_label("Description").fill("Beta testers of November")
    return str(page.get_by_label("Idempotency key").input_value())


def preview(page: Page, *emails: str, amount: int = 250) -> str:
    key = fill(page, *emails, amount=amount)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#will-grant")).to_be_visible()
    return key


def test_a_grant_is_previewed_and_then_applied(console, shot, testers):
    page = console(GRANT, path="/admin/billing/grants/")
    addresses = [user.email for user in testers]
    fill(page, *addresses, "nobody@example.com", addresses[0])
    shot("grant-form")

    page.get_by_role("button", name="Preview").click()

    expect(page.locator("#summary")).to_contain_text("750 Flux in all")
    expect(page.locator("#will-grant tbody tr")).to_have_count(3)
    expect(page.get_by_text("No user has this address: 1")).to_be_visible()
    expect(page.get_by_text("Named before in this list: 1")).to_be_visible()
    assert credits_of(*testers) == []
    shot("grant-preview")

    page.get_by_role("button", name="Grant 750 Flux").click()

    expect(page.locator("#outcome")).to_contain_text("3 granted now, 750 Flux in all")
    assert sorted(credits_of(*testers)) == sorted((user.pk, 250) for user in testers)
    shot("grant-result")


def test_a_retry_with_the_same_key_pays_nobody_twice(console, shot, testers):
    first, second, _ = testers
    page = console(GRANT, path="/admin/billing/grants/")
    key = preview(page, first.email)
    page.get_by_role("button", name="Grant 250 Flux").click()
    expect(page.locator("#outcome")).to_contain_text("1 granted now")

    page.goto("/admin/billing/grants/")
    fill(page, first.email, second.email)
    page.get_by_label("Idempotency key").fill(key)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#paid-before")).to_be_visible()
    shot("grant-retry")
    page.get_by_role("button", name="Grant 250 Flux").click()

    expect(page.locator("#outcome")).to_contain_text("1 granted now")
    expect(page.locator("#outcome")).to_contain_text("1 had it already")
    assert credits_of(first, second) == [(first.pk, 250), (second.pk, 250)]


def test_two_clicks_at_once_pay_once(console, testers):
    first = testers[0]
    page = console(GRANT, path="/admin/billing/grants/")
    preview(page, first.email)

    page.get_by_role("button", name="Grant 250 Flux").dblclick(no_wait_after=True)

    expect(page.locator("#outcome")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert credits_of(first) == [(first.pk, 250)]


def test_reloading_the_result_pays_nobody(console, testers):
    first = testers[0]
    page = console(GRANT, path="/admin/billing/grants/")
    preview(page, first.email)
    page.get_by_role("button", name="Grant 250 Flux").click()
    expect(page.locator("#outcome")).to_contain_text("1 granted now")

    page.reload()

    expect(page.locator("#outcome")).to_contain_text("1 had it already")
    assert credits_of(first) == [(first.pk, 250)]


def test_a_mistake_is_shown_beside_its_field(console, shot, testers):
    page = console(GRANT, path="/admin/billing/grants/")
    fill(page, testers[0].email, "not an address", amount=0)

    page.get_by_role("button", name="Preview").click()

    expect(page.get_by_text("of these are not e-mail addresses")).to_be_visible()
    expect(page.get_by_text("greater than or equal to 1")).to_be_visible()
    assert page.get_by_label("Description").input_value() == "Beta testers of November"
    shot("grant-mistake")


def test_without_the_permission_there_is_no_way_and_no_page(console, watch: Watch, testers):
    page = console("accounts.view_user", path=f"/admin/accounts/user/{testers[0].pk}/change/")

    expect(page.get_by_role("heading", name=testers[0].email).first).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("Grant Flux"))).to_have_count(0)
    watch.allow(403)
    answer = page.goto("/admin/billing/grants/")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
