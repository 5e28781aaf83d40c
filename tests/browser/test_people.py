"""Users in a browser: made, found, banned and let in again; a key that is shown once."""

from __future__ import annotations

import re

from accounts.models import APIKey, User
from airi_server.runtime.audit import AuditEntry
from tests.browser import people
from tests.browser.chromium import Page, Watch, expect
from tests.factories import accounts, billing

LOOK = "accounts.view_user"
KEYS = "accounts.view_apikey"


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


def submit(page: Page, name: str) -> None:
    page.locator("form").get_by_role("button", name=name, exact=True).click()


def test_a_user_is_made(console, shot):
    page = console("accounts.add_user", LOOK, path="/admin/accounts/user/add/")
    address = f"new.{people.person('any').pk.lower()}@example.com"

    page.get_by_label("Email").fill(address)
    page.get_by_label("Verified").check()
    submit(page, "Add user")

    expect(page.get_by_text(f"Created {address}").first).to_be_visible()
    made = User.objects.get(email=address)
    assert made.email_verified
    assert not made.is_staff
    assert AuditEntry.objects.get(subject_id=made.pk).action == "accounts.add_user"


def test_a_user_is_banned_with_a_reason_and_let_in_again(console, shot):
    user = accounts.api_key(owner=people.person("mio"))[0].user
    billing.make_account(1_250, user_id=user.pk)
    may = ("accounts.ban_user", "accounts.unban_user", "accounts.change_user")
    page = console(LOOK, KEYS, *may, path=page_of(user))
    shot("user")

    page.get_by_role("link", name="Ban", exact=True).click()
    submit(page, "Ban")
    expect(page.get_by_text("This field is required")).to_be_visible()
    page.get_by_label("Reason").fill("shares their key in public")
    shot("user-ban")
    submit(page, "Ban")

    expect(page.get_by_text("is banned").first).to_be_visible()
    user.refresh_from_db()
    assert (user.banned, user.ban_reason) == (True, "shares their key in public")
    shot("user-banned")

    page.get_by_role("link", name="End the ban").click()
    page.get_by_label("Reason").fill("it was a misunderstanding")
    submit(page, "End the ban")

    expect(page.get_by_text("is not banned any more").first).to_be_visible()
    user.refresh_from_db()
    assert not user.banned
    page.goto(f"/admin/accounts/user/{user.pk}/history/")
    expect(page.get_by_text("it was a misunderstanding")).to_be_visible()
    shot("user-history")


def test_a_key_is_shown_once(console, shot):
    user = people.person("ren")
    path = f"/admin/accounts/apikey/add/?owner={user.email}"
    page = console("accounts.add_apikey", KEYS, path=path)
    page.get_by_label("Name", exact=False).first.fill("laptop")

    submit(page, "Add API key")

    plaintext = page.locator("#plaintext").inner_text().strip()
    assert plaintext.startswith("sk-airi-")
    key = APIKey.objects.get(user=user)
    page.goto(f"/admin/accounts/apikey/{key.pk}/change/")
    assert plaintext not in page.content()
    expect(page.get_by_text(plaintext[:12]).first).to_be_visible()
    shot("api-key")


def test_a_key_is_disabled_with_a_reason(console):
    key, _ = accounts.api_key(owner=people.person("yui"))
    path = f"/admin/accounts/apikey/{key.pk}/change/"
    page = console(KEYS, "accounts.change_apikey", path=path)

    page.get_by_role("link", name="Disable", exact=True).click()
    page.get_by_label("Reason").fill("found in a repository")
    submit(page, "Disable")

    expect(page.get_by_text(re.compile("disabled", re.IGNORECASE)).first).to_be_visible()
    key.refresh_from_db()
    assert key.disabled_at is not None


def test_who_may_only_look_finds_no_buttons(console, watch: Watch):
    user = people.person("mio")
    page = console(LOOK, path=page_of(user))

    for name in ("Ban", "Set password", "Verify"):
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    watch.allow(403)
    for action in ("ban", "password", "verify", "unban"):
        answer = page.goto(f"/admin/accounts/user/{user.pk}/{action}/")
        assert answer is not None
        assert answer.status == 403


def test_a_reload_after_a_new_key_makes_no_second(console):
    owner = people.person("mio")
    page = console(
        "accounts.add_apikey", "accounts.view_apikey",
        path=f"/admin/accounts/apikey/add/?owner={owner.email}",
    )  # fmt: skip
    page.get_by_label("Name").fill("only one")
    page.get_by_role("button", name="Add API key").dblclick(no_wait_after=True)
    expect(page.locator("#plaintext, .console-facts, #content").first).to_be_visible()
    page.wait_for_load_state("networkidle")

    page.reload()

    key = APIKey.objects.get(user=owner, name="only one")
    expect(page).to_have_url(re.compile(f"/admin/accounts/apikey/{key.pk}/change/"))
    expect(page.get_by_text("nothing was done again")).to_be_visible()
    page.reload()
    assert APIKey.objects.filter(user=owner).count() == 1
