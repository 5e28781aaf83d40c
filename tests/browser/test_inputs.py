"""Whatever somebody fills in on a page of the console can be seen: generated from the URLconf."""

from __future__ import annotations

import pytest

from tests.browser import inputs, people
from tests.browser.conftest import log_in
from tests.console import rows
from tests.console.pages import PAGES
from tests.console.walk import places

SKIPPED = ("_row", "export", "logout", "jsi18n", "nothing", "password_change_done")
"""Ends of the names of what leads elsewhere, or is no page."""


@pytest.fixture
def page(context, watch, fresh):
    log_in(context, people.operator(is_superuser=True))
    # What is not there, may not be done with this row, or is asked for by POST only.
    watch.allow(400, 403, 404, 405)
    page = context.new_page()
    # A hundred pages, on a machine that has more to do.
    page.set_default_navigation_timeout(30_000)
    return page


def test_every_input_can_be_seen_in_the_light_and_in_the_dark(page):
    keys = rows.make().keys
    named = {name: place for name, place in places().items() if name in PAGES}
    found: list[str] = []
    count = 0

    for name, place in sorted(named.items()):
        if name.endswith(SKIPPED):
            continue
        page.goto(place.url(keys), wait_until="load")
        count += page.locator("input:visible, select:visible, textarea:visible").count()
        found += [f"{name}: {fault}" for fault in inputs.faults(page)]

    assert "\n".join(found) == ""
    assert count > 100


def test_one_without_any_style_is_found(page):
    page.goto("/admin/")
    page.locator("#content, main, body").last.evaluate(
        """e => e.insertAdjacentHTML("beforeend", '<p><input name="bare" style="all: revert; '
        + 'border: 0; padding: 0"></p>')""".replace("\n        +", "+")
    )

    assert {fault.split()[3] for fault in inputs.faults(page)} == {"bare:"}
