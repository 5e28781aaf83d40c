"""One account in a browser: adjusted by who has seen all of it, frozen and thawed with a reason."""

from __future__ import annotations

import pytest

from billing import ledger
from billing.models import FluxAccount, FluxTransaction
from tests.browser import people
from tests.browser.chromium import Page, Watch, expect
from tests.factories import billing

LOOK = "billing.view_fluxaccount"


@pytest.fixture
def account() -> FluxAccount:
    return FluxAccount.objects.get(pk=billing.make_account(900, people.person("mio").pk))


def page_of(account: FluxAccount) -> str:
    return f"/admin/billing/fluxaccount/{account.pk}/change/"


def submit(page: Page, name: str) -> None:
    page.locator("form").get_by_role("button", name=name, exact=True).click()


def newest(account: FluxAccount) -> FluxTransaction:
    return FluxTransaction.objects.filter(user_id=account.pk).order_by("-user_seq")[0]


def test_a_balance_is_adjusted_with_a_reason(console, shot, account):
    page = console(LOOK, "billing.adjust_flux", path=page_of(account))
    shot("account")
    page.get_by_role("link", name="Adjust").click()
    page.get_by_label("Change").fill("-150")
    page.get_by_label("Reason").fill("charged twice by the provider")
    submit(page, "Continue")

    row = page.locator("#changes tr", has_text="Balance")
    expect(row).to_contain_text("900")
    expect(row).to_contain_text("750")
    assert newest(account).balance_after == 900
    shot("account-adjust")
    submit(page, "Adjust the balance")

    expect(page.get_by_text("The balance is 750; it was 900.").first).to_be_visible()
    entry = newest(account)
    assert (entry.balance_after, entry.description) == (750, "charged twice by the provider")


def test_who_has_not_seen_the_newest_entry_looks_again(console, shot, account):
    page = console(LOOK, "billing.adjust_flux", path=f"{page_of(account)[:-7]}adjust/")
    ledger.credit(
        user_id=account.pk, amount=40, request_id=None, description="meanwhile", at=billing.NOW
    )
    page.get_by_label("Change").fill("100")
    page.get_by_label("Reason").fill("a present")

    submit(page, "Continue")

    expect(page.locator("form.console-form")).to_contain_text("940 Flux now")
    expect(page.locator("#changes tr", has_text="Balance")).to_contain_text("1,040")
    assert newest(account).description == "meanwhile"
    shot("account-stale")
    submit(page, "Adjust the balance")
    expect(page.get_by_text("The balance is 1040; it was 940.").first).to_be_visible()


def test_a_large_change_is_entered_again(console, shot, account):
    page = console(LOOK, "billing.adjust_flux", path=f"{page_of(account)[:-7]}adjust/")
    page.get_by_label("Change").fill("25000")
    page.get_by_label("Reason").fill("a contest")
    submit(page, "Continue")

    submit(page, "Adjust the balance")

    expect(page.get_by_text("This field is required.")).to_be_visible()
    assert newest(account).balance_after == 900
    page.get_by_label("Change, once more").fill("25000")
    shot("account-adjust-much")
    submit(page, "Adjust the balance")
    expect(page.get_by_text("The balance is 25900; it was 900.").first).to_be_visible()


def test_an_account_is_frozen_and_thawed(console, shot, account):
    page = console(LOOK, "billing.freeze_account", path=page_of(account))

    page.get_by_role("link", name="Freeze", exact=True).click()
    page.get_by_label("Reason").fill("a chargeback is open")
    submit(page, "Freeze the account")

    expect(page.get_by_text("Frozen.").first).to_be_visible()
    account.refresh_from_db()
    assert account.frozen
    shot("account-frozen")

    page.get_by_role("link", name="Thaw", exact=True).click()
    page.get_by_label("Reason").fill("the chargeback was withdrawn")
    submit(page, "Thaw the account")

    expect(page.get_by_text("Thawed.").first).to_be_visible()
    account.refresh_from_db()
    assert not account.frozen


def test_who_may_only_look_finds_no_buttons(console, watch: Watch, account):
    page = console(LOOK, path=page_of(account))

    for name in ("Adjust", "Freeze", "Grant Flux"):
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    watch.allow(403)
    for action in ("adjust", "freeze", "thaw", "grant"):
        answer = page.goto(f"{page_of(account)[:-7]}{action}/")
        assert answer is not None
        assert answer.status == 403
