"""Operator settings in a browser: changed, refused at the field, and taken back from history."""

from __future__ import annotations

from airi_server.runtime.models import OptionRevision
from billing import options
from tests.browser.chromium import Page, expect

CHANGE = "runtime.change_options"
NAME = "FLUX_PER_REQUEST"
PATH = f"/admin/settings/{NAME}/"


def publish(page: Page, value: str, note: str) -> None:
    page.locator("[name=value]").fill(value)
    page.locator("[name=note]").fill(note)
    page.locator("[name=note]").press("Enter")


def test_a_setting_is_changed_and_taken_back(console, shot):
    page = console(CHANGE, path="/admin/settings/")
    shot("settings")
    page.get_by_role("link", name=NAME).click()
    publish(page, "7", "costs went up")
    expect(page.get_by_text(f"{NAME} is 7").first).to_be_visible()
    publish(page, "9", "and up")
    expect(page.get_by_text(f"{NAME} is 9").first).to_be_visible()
    assert options.FLUX_PER_REQUEST.read() == 9
    shot("setting")

    older = OptionRevision.objects.filter(name=NAME).order_by("id")[0]
    page.locator(f"[href*='again={older.pk}']").click()
    page.get_by_label("Reason").fill("they went down again")
    shot("setting-again")
    page.get_by_role("button", name="Publish this value again").click()

    expect(page.get_by_text(f"{NAME} is 7").first).to_be_visible()
    assert options.FLUX_PER_REQUEST.read() == 7
    newest = OptionRevision.objects.filter(name=NAME).order_by("-id")[0]
    assert (newest.value, newest.note) == (7, "they went down again")


def test_a_value_out_of_range_is_refused_at_its_field(console, shot):
    before = OptionRevision.objects.count()
    page = console(CHANGE, path=PATH)

    # The browser would not send it: what the server says is what is tested.
    page.locator("form:has([name=value])").evaluate("form => { form.noValidate = true }")
    publish(page, "-1", "a mistake")

    expect(page.get_by_text("greater than or equal to 0")).to_be_visible()
    assert page.locator("[name=note]").input_value() == "a mistake"
    assert OptionRevision.objects.count() == before
    shot("setting-mistake")


def test_who_may_only_look_finds_no_form(console):
    page = console("runtime.view_optionrevision", path=PATH)

    expect(page.get_by_text(NAME).first).to_be_visible()
    expect(page.locator("[name=value]")).to_have_count(0)
