"""What a person meets where a page should have been, and how they go on from it."""

from __future__ import annotations

import re

import pytest

from tests.browser.chromium import Page, Watch, expect


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_page_that_is_not_there_leads_back(console, watch: Watch, width, scheme):
    page: Page = console(is_superuser=True)
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    watch.allow(404)

    answer = page.goto("/admin/nothing/")

    assert answer is not None
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    expect(page.get_by_text(answer.headers["x-request-id"])).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.querySelector('nav a')).borderRadius") == "6px"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_title(re.compile("Start"))


def test_a_page_of_the_app_that_is_not_there_leads_to_the_chat(context, watch: Watch):
    page = context.new_page()
    watch.allow(404)
    page.goto("/app/nothing")

    page.get_by_role("link", name="Chat").click()

    expect(page).to_have_url(re.compile("/app/chat"))


def test_a_form_whose_session_is_over_says_so_and_leads_back(console, watch: Watch):
    page: Page = console(is_superuser=True)
    page.goto("/admin/billing/grants/")
    session = [each for each in page.context.cookies() if each["name"] != "sessionid"]
    page.context.clear_cookies()
    page.context.add_cookies(session)
    watch.allow(403)

    page.locator("form[method=post]").last.evaluate("form => form.submit()")

    expect(page.get_by_role("heading", name="Your session is over")).to_be_visible()
    page.get_by_role("link", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/admin/login/\?next=/admin/billing/grants/"))
