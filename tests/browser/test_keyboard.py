"""The console without a mouse: in, through a form and out of it."""

from __future__ import annotations

import re

from billing.models import FluxTransaction
from tests.browser import people
from tests.browser.chromium import Page, expect

MAX_TABS = 40


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until this element has the focus, as somebody would who sees where it is."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} was not reached with {MAX_TABS} tabs")


def write(page: Page, selector: str, text: str) -> None:
    tab_to(page, selector)
    page.keyboard.type(text)


def test_logging_in_takes_no_mouse(context):
    operator = people.with_password(people.operator())
    page = context.new_page()
    page.goto("/admin/login/")

    write(page, "[name=username]", operator.email)
    write(page, "[name=password]", people.PASSWORD)
    page.keyboard.press("Enter")

    expect(page).to_have_title(re.compile("Start"))


def test_granting_takes_no_mouse(console):
    user = people.person("mio")
    page = console("billing.grant_flux")
    tab_to(page, "a[href$='/billing/grants/']")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/billing/grants/"))

    write(page, "[name=emails]", user.email)
    write(page, "[name=amount]", "30")
    write(page, "[name=description]", "by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_contain_text("30 Flux in all")
    tab_to(page, "[name=_apply]")
    page.keyboard.press("Enter")

    expect(page.locator("#outcome")).to_contain_text("1 granted")
    assert FluxTransaction.objects.get(user_id=user.pk, amount=30).description == "by keyboard"


def test_the_search_box_is_one_key_away_but_not_while_writing(console):
    page = console("billing.grant_flux")
    box = page.get_by_role("searchbox").first

    page.keyboard.press("/")
    expect(box).to_be_focused()

    page.goto("/admin/billing/grants/")
    page.locator("[name=description]").focus()
    page.keyboard.type("either/or")
    assert page.locator("[name=description]").input_value() == "either/or"


def test_where_the_focus_is_can_be_seen(console):
    page = console("billing.grant_flux", path="/admin/billing/grants/")
    for selector in ("[name=emails]", "[name=amount]", "[name=_preview]"):
        unfocused = looks_of(page, selector)

        page.locator(selector).focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")

        assert looks_of(page, selector) != unfocused, selector


def looks_of(page: Page, selector: str) -> list[str]:
    look = "e => { const s = getComputedStyle(e); return [s.outline, s.boxShadow, s.borderColor] }"
    found: list[str] = page.locator(selector).evaluate(look)
    return found
