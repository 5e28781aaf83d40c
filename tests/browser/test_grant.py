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

    expect(page.get_by_text("3 granted now, 750 Flux in all")).to_be_visible()
    expect(page.locator("#outcome")).to_contain_text("3 granted, 750 Flux in all; 2 refused")
    expect(page.locator("#result tbody tr")).to_have_count(5)
    assert sorted(credits_of(*testers)) == sorted((user.pk, 250) for user in testers)
    shot("grant-result")


def test_a_retry_with_the_same_key_pays_nobody_twice(console, shot, testers):
    first, second, _ = testers
    page = console(GRANT, path="/admin/billing/grants/")
    key = preview(page, first.email)
    page.get_by_role("button", name="Grant 250 Flux").click()
    expect(page.locator("#outcome")).to_contain_text("1 granted")

    page.goto("/admin/billing/grants/")
    fill(page, first.email, second.email)
    page.get_by_label("Idempotency key").fill(key)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#paid-before")).to_be_visible()
    shot("grant-retry")
    page.get_by_role("button", name="Grant 250 Flux").click()

    expect(page.get_by_text("1 granted now")).to_contain_text("1 had it already")
    expect(page.locator("#outcome")).to_contain_text("2 granted")
    assert credits_of(first, second) == [(first.pk, 250), (second.pk, 250)]


def test_two_clicks_at_once_pay_once(console, testers):
    first = testers[0]
    page = console(GRANT, path="/admin/billing/grants/")
    preview(page, first.email)

    page.get_by_role("button", name="Grant 250 Flux").dblclick(no_wait_after=True)

    expect(page.locator("#outcome")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert credits_of(first) == [(first.pk, 250)]


def test_reload_and_back_do_nothing_and_ask_nothing(console, testers):
    first = testers[0]
    page = console(GRANT, path="/admin/billing/grants/")
    preview(page, first.email)
    previewed = page.url
    page.reload()
    expect(page.locator("#will-grant")).to_be_visible()
    page.get_by_role("button", name="Grant 250 Flux").click()
    expect(page.locator("#outcome")).to_contain_text("1 granted")
    grant = page.url

    page.reload()
    expect(page.locator("#outcome")).to_contain_text("1 granted")
    page.go_back()
    expect(page.locator("#have-it")).to_contain_text(first.email)
    assert page.url == previewed
    page.go_forward()
    expect(page.locator("#outcome")).to_contain_text("1 granted")

    assert page.url == grant
    assert credits_of(first) == [(first.pk, 250)]


def test_a_messy_list_is_read_and_shown_as_it_was_pasted(console, shot, testers):
    mio, ren, yui = testers
    page = console(GRANT, path="/admin/billing/grants/")
    fill(
        page,
        f"Lee, Mio <{mio.email}>\uff1b\u200b{ren.email}\uff0c'{yui.email}'",
        f"mailto:{mio.email.upper()}",
    )

    page.get_by_role("button", name="Preview").click()

    expect(page.locator("#will-grant tbody tr")).to_have_count(3)
    expect(page.locator("#will-grant")).to_contain_text("pasted as ⟨U+200B⟩")
    expect(page.get_by_text("Named before in this list: 1")).to_be_visible()
    shot("grant-pasted")


def test_a_file_has_an_amount_for_each(console, testers):
    mio, ren, _ = testers
    page = console(GRANT, path="/admin/billing/grants/")
    table = f"name,email,amount\r\nMio,{mio.email},5\r\nRen,{ren.email},7\r\n"
    file = {"name": "people.csv", "mimeType": "text/csv", "buffer": table.encode()}
    page.get_by_label("Or a CSV file").set_input_files(file)
    page.get_by_label("Description").fill("Prizes")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#unused")).to_contain_text("“name”")

    page.get_by_role("button", name="Grant 12 Flux").click()

    expect(page.locator("#outcome")).to_contain_text("2 granted, 12 Flux in all")
    assert sorted(credits_of(mio, ren)) == sorted([(mio.pk, 5), (ren.pk, 7)])


def test_fits_a_phone(console, testers):
    page = console(GRANT, path="/admin/billing/grants/")
    page.set_viewport_size({"width": 390, "height": 844})
    preview(page, *(f"Somebody <{user.email}>" for user in testers))
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    page.get_by_role("button", name="Grant 750 Flux").click()

    expect(page.locator("#outcome")).to_contain_text("3 granted")

    assert not page.evaluate(wide)


def test_grants_are_listed(console, shot, testers):
    page = console(GRANT, path="/admin/billing/grants/")
    preview(page, testers[0].email)
    page.get_by_role("button", name="Grant 250 Flux").click()
    expect(page.locator("#outcome")).to_contain_text("1 granted")

    page.get_by_role("link", name="Grants", exact=True).first.click()

    expect(page.get_by_text("Beta testers of November").first).to_be_visible()
    shot("grant-list")


def test_a_mistake_is_shown_beside_its_field(console, shot, testers):
    page = console(GRANT, path="/admin/billing/grants/")
    fill(page, testers[0].email, "not an address", amount=0)

    page.get_by_role("button", name="Preview").click()

    expect(page.get_by_text("Line 2: This is not an e-mail address: not.")).to_be_visible()
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
    expect(page.get_by_role("heading", name="You may not do this")).to_be_visible()
