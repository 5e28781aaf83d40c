"""The start page, on a server that nobody has used yet and on one with a month behind it."""

from __future__ import annotations

from tests.browser import people
from tests.browser.chromium import Locator, Page, expect
from tests.browser.conftest import log_in

SEE = ("billing.view_fluxaccount", "billing.view_fluxtransaction", "billing.view_llmrequestlog")
SETTERS = ("llmrouter.view_routermodel", "billing.view_priceversion", "accounts.view_user")
COLORS_OF = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


def colors(canvas: Locator) -> int:
    """Count the colours of a chart: one that was not drawn has a single one."""
    found: int = canvas.evaluate(COLORS_OF)
    return found


def is_drawn(page: Page) -> None:
    canvases = page.locator("canvas")
    expect(canvases).to_have_count(3)
    for number in range(3):
        canvases.nth(number).scroll_into_view_if_needed()
        page.wait_for_function(f"({COLORS_OF})(document.querySelectorAll('canvas')[{number}]) > 5")
    page.locator("#verdict").scroll_into_view_if_needed()


def test_a_month_is_drawn_and_can_be_read_as_tables(console, shot, used):
    page = console(*SEE)

    expect(page.locator("#verdict")).to_be_visible()
    is_drawn(page)
    shot("start")
    page.locator("canvas").last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 2_000)
    shot("start-charts")
    charts = page.locator("details.console-numbers")
    assert charts.count() == 3
    charts.first.locator("summary").click()
    expect(charts.first.locator("tbody tr")).to_have_count(30)
    charts.nth(1).locator("summary").click()
    expect(charts.nth(1).locator("tbody")).to_contain_text("chat-default")


def test_the_dark_mode_is_dark(context, shot, used):
    page = context.new_page()
    page.emulate_media(color_scheme="dark")
    log_in(context, people.operator(*SEE))
    page.goto("/admin/")

    expect(page.locator("html")).to_have_class("dark")
    is_drawn(page)
    background = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background != "rgb(255, 255, 255)"
    shot("start-dark")


def test_the_switch_turns_the_light_off_and_it_stays_off(console):
    page = console(*SEE)
    assert page.locator("html.dark").count() == 0

    page.get_by_text("operator").first.click()
    page.get_by_text("Dark", exact=True).click()

    expect(page.locator("html")).to_have_class("dark")
    page.goto("/admin/billing/fluxaccount/")
    expect(page.locator("html")).to_have_class("dark")


def test_a_fresh_server_says_what_to_do_next(console, shot, fresh):
    page = console(*SEE, *SETTERS, "runtime.view_auditentry", "accounts.view_apikey")

    expect(page.get_by_text("Next steps")).to_be_visible()
    expect(page.get_by_role("link", name="Add a model")).to_be_visible()
    expect(page.get_by_text("No Flux has moved in 30 days.")).to_be_visible()
    shot("start-fresh")


EMPTY = {
    "llmrouter/routermodel/": "To add the first you need",
    "billing/fluxaccount/": "An account opens with",
    "billing/fluxtransaction/": "",
    "billing/llmrequestlog/": "Widen the time",
    "billing/priceversion/": "Without a price of its own",
    "accounts/apikey/": "make one with",
}


def test_every_empty_list_says_what_to_do_next(console, shot, fresh):
    page = console(*SEE, *SETTERS, "accounts.view_apikey")
    for path, words in EMPTY.items():
        page.goto(f"/admin/{path}")

        expect(page.locator("main, #main, body").first).to_contain_text(words)
        assert page.get_by_text("No results").count() == 0, path
    shot("empty")


def test_staff_who_may_see_nothing_are_told_so(console):
    page = console()

    expect(page.get_by_text("There is nothing here that you may see yet.")).to_be_visible()
