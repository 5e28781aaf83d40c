"""A price in a browser: shown before it is published, entered twice if it jumps, published once."""

from __future__ import annotations

import pytest

from airi_server.pages.confirm import TIMES
from billing.models import PriceVersion
from tests.browser import inputs, people
from tests.browser.chromium import Page, expect
from tests.browser.conftest import log_in
from tests.factories import billing
from tests.factories import llmrouter as routers

MAY = ("billing.view_priceversion", "billing.add_priceversion")
ADD = "/admin/billing/priceversion/add/?model=chat-default"
COMPLETION = "Completion, Flux for each 1,000 tokens"
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def in_force(used) -> PriceVersion:
    """The price of a model that was used for a month."""
    names = ("chat-default", "chat-large")
    routers.published(routers.chat_tree(**{n: routers.chat_model(name=n) for n in names}))
    return billing.price_row(
        flux_per_1k_input=90, flux_per_1k_output=90, flux_per_1k_cached=9, flux_per_request=5
    )


def press(page: Page, name: str) -> None:
    page.locator("form.console-form").get_by_role("button", name=name, exact=True).click()


def test_a_price_is_shown_entered_again_and_published(console, shot, in_force):
    page = console(*MAY, path=ADD)
    page.get_by_label(COMPLETION).fill("250")
    page.get_by_label("Note").fill("the provider's new list")
    shot("price-form")

    press(page, "Continue")

    changes = page.locator("#changes")
    expect(changes).to_contain_text("The last 326 requests together")
    expect(changes.locator("tr", has_text="Completion, Flux")).to_contain_text(f"{TIMES}2.78")
    shot("price-confirm")
    press(page, "Publish the price")
    expect(page.get_by_text("This field is required.")).to_be_visible()
    page.get_by_label(f"{COMPLETION}, once more").fill("2500")
    press(page, "Publish the price")
    expect(page.get_by_text("This is not what you entered before.")).to_be_visible()
    page.get_by_label(f"{COMPLETION}, once more").fill("250")
    press(page, "Publish the price")

    expect(page.get_by_text("is in force: requests pay it").first).to_be_visible()
    expect(page.get_by_role("link", name="Change this price")).to_be_visible()
    newest = PriceVersion.objects.order_by("-id")[0]
    assert f"{newest.model} {newest.flux_per_1k_output:.0f}" == "chat-default 250"
    page.reload()
    assert PriceVersion.objects.order_by("-id")[0] == newest


def test_a_double_click_makes_one_version(console, in_force):
    page = console(*MAY, path=ADD)
    page.get_by_label(COMPLETION).fill("100")
    page.get_by_label("Note").fill("twice")
    press(page, "Continue")
    before = PriceVersion.objects.count()

    button = page.locator("form.console-form").get_by_role("button", name="Publish the price")
    button.dblclick()

    expect(page.get_by_text("is in force: requests pay it").first).to_be_visible()
    assert PriceVersion.objects.count() == before + 1


def test_the_second_of_two_operators_is_told(console, shot, in_force):
    page = console(*MAY, path=ADD)
    page.get_by_label(COMPLETION).fill("100")
    page.get_by_label("Note").fill("mine")
    press(page, "Continue")
    theirs = billing.price_row(flux_per_1k_output=95, flux_per_1k_input=90, flux_per_1k_cached=9)

    press(page, "Publish the price")

    expect(page.get_by_text(f"tester has published {theirs}")).to_be_visible()
    expect(page.locator("#changes tr", has_text="Completion, Flux")).to_contain_text("95")
    shot("price-moved")


def test_a_model_that_does_not_exist_is_refused_with_what_is_near(console, shot, in_force):
    page = console(*MAY, path="/admin/billing/priceversion/add/")
    page.get_by_label("Model", exact=True).fill("chat-larg")
    page.get_by_label("Note").fill("x")

    press(page, "Continue")

    expect(page.get_by_text("No model is called “chat-larg”. Near it: chat-large")).to_be_visible()
    shot("price-mistake")


def test_the_page_fits_a_phone_in_the_dark(context, in_force):
    page = context.new_page()
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    log_in(context, people.operator(*MAY))
    page.goto(ADD)
    page.get_by_label(COMPLETION).fill("250")
    page.get_by_label("Note").fill("x")
    press(page, "Continue")

    expect(page.locator("#changes")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert inputs.faults(page) == []
    box = page.locator("#changes").bounding_box()
    assert box is not None
    assert box["width"] <= PHONE["width"]
