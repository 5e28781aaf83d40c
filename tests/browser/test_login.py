"""The way in and out, and what somebody sees who may do nothing."""

from __future__ import annotations

import re

from tests.browser import people
from tests.browser.chromium import Page, Watch, expect


def sign_in(page: Page, email: str, password: str = people.PASSWORD) -> None:
    page.goto("/admin/")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name=re.compile("log in", re.IGNORECASE)).click()


def test_an_operator_logs_in_and_out(context, shot):
    operator = people.with_password(people.operator())
    page = context.new_page()
    page.goto("/admin/login/")
    shot("login")

    sign_in(page, operator.email)

    expect(page).to_have_title(re.compile("Start"))
    page.goto("/admin/")
    page.get_by_text(operator.email).first.click()
    page.get_by_text("Log out").click()
    page.goto("/admin/")
    expect(page).to_have_url(re.compile("/admin/login/"))


def test_a_wrong_password_and_a_user_are_told_the_same(context):
    operator = people.with_password(people.operator())
    user = people.with_password(people.operator(is_staff=False))
    page = context.new_page()

    said = []
    for email, password in ((operator.email, "wrong"), (user.email, people.PASSWORD)):
        sign_in(page, email, password)
        text = page.get_by_text("Please enter the correct").inner_text()
        said.append(text.split())  # without its styles, a page has the template's blanks

    assert said[0] == said[1]


def test_staff_without_a_permission_find_no_way_and_no_page(console, watch: Watch):
    page = console()

    expect(page.get_by_role("link", name="Ledger")).to_have_count(0)
    expect(page.get_by_role("link", name="Settings")).to_have_count(0)
    watch.allow(403)
    for path in ("billing/fluxtransaction/", "accounts/user/", "settings/"):
        answer = page.goto(f"/admin/{path}")
        assert answer is not None
        assert answer.status == 403
