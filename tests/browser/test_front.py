"""What a person meets before any console: `/`, which leads on, and the API's reference."""

from __future__ import annotations

import re

import pytest

from tests.browser.chromium import Page, expect

PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 800}


@pytest.fixture
def page(context):
    made = context.new_page()
    yield made
    made.set_viewport_size(WIDE)


def overflow(page: Page) -> int:
    wide: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wide


class TestLanding:
    def test_leads_to_the_chat_the_reference_and_the_console(self, page):
        for name, heading in (
            ("Chat", "AIRI chat"), ("API reference", "API reference"), ("Console", None)
        ):  # fmt: skip
            page.goto("/")
            expect(page.get_by_role("main")).to_contain_text("AIRI server")
            page.get_by_role("link", name=re.compile(f"^{name}")).click()
            if heading:
                expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
            else:
                expect(page).to_have_url(re.compile("/admin/login/"))

    def test_is_reached_by_keyboard_alone(self, page):
        page.goto("/")

        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=re.compile("^Chat"))).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        expect(page).to_have_url(re.compile("/docs$"))

    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_fits_on_a_phone(self, page, path):
        page.set_viewport_size(PHONE)
        page.goto(path)

        assert overflow(page) == 0


class TestReference:
    def test_shows_an_operation_with_its_fields(self, page, shot):
        page.goto("/docs")
        shot("reference")
        page.get_by_role("link", name="API keys", exact=True).click()
        page.get_by_text("Create key").click()

        made = page.locator("#create_key")
        expect(made.get_by_role("row", name=re.compile("^name required string"))).to_be_visible()
        expect(made).to_contain_text("limits.month")
        page.set_viewport_size(PHONE)
        assert overflow(page) == 0

    def test_leads_to_an_operation_that_is_closed(self, page):
        page.goto("/docs")

        page.get_by_role("link", name="POST /api/v1/keys").click()

        expect(page).to_have_url(re.compile("#create_key$"))
        expect(page.locator("#create_key")).to_be_in_viewport()

    def test_works_in_the_dark(self, page):
        page.emulate_media(color_scheme="dark")
        page.goto("/docs")

        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(color_scheme="light")
        assert body == "rgb(13, 15, 18)"

    def test_leads_to_the_protocol_of_the_sockets(self, page):
        page.goto("/docs")

        page.get_by_role("link", name="The protocol").click()

        expect(page.locator("body")).to_contain_text("# The chat sockets")

    @pytest.mark.parametrize("typed", ["/admin", "/app", "/docs/"])
    def test_what_is_typed_without_its_end_leads_on(self, page, typed):
        page.goto(typed)

        expect(page).to_have_url(re.compile("/admin/login/|/app/chat|/docs$"))
