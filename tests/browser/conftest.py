"""A real server and a real browser, shared by all tests of this package on one worker.

The database is emptied after the last of them, not between them, because the server keeps copies
of what is published: each test has users, keys and models of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test import Client

from airi_server.runtime.models import PublishedVersion
from tests.browser import chromium, month, people, pictures
from tests.browser.chromium import BrowserContext, Page, Watch
from tests.lab.server import ROOT, ServerProcess
from tests.processes.conftest import ThreadedUpstream

HERE = Path(__file__).parent
IMAGES = ROOT / "docs" / "images"
VIEWPORT = {"width": 1280, "height": 800}


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Keep these tests together, and begin with them: one worker has them all, for a while."""
    reason = "" if chromium.must_run() else chromium.missing()
    for item in items:
        if _is_ours(item):
            item.add_marker(pytest.mark.xdist_group("browser"))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
    yield
    items.sort(key=lambda item: not _is_ours(item))


def _is_ours(item: pytest.Item) -> bool:
    return HERE in item.path.parents


@pytest.fixture(scope="package")
def database(django_db_setup, django_db_blocker):
    """Commit what the tests write, because a process sees nothing else."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", interactive=False, verbosity=0)
        connection.close()


@pytest.fixture(autouse=True)
def transactional_db(database):
    """Stand in for the fixture of this name, which would empty the database after each test."""


@pytest.fixture(scope="package")
def server(database, tmp_path_factory):
    log = tmp_path_factory.mktemp("browser") / "server.log"
    # The same prefix as ours: what a test publishes is known over there at once.
    with ServerProcess(log, REDIS_PREFIX=settings.REDIS_PREFIX) as running:
        yield running


@pytest.fixture(scope="package")
def browser(server):
    if reason := chromium.missing():
        pytest.fail(reason)
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as driver:
        # The driver's loop runs in this thread, beside the tests; Django takes that for a mistake.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = chromium.launched(driver)
        yield browser
        browser.close()
        connection.close()  # beside a loop Django has another one than without


@pytest.fixture
def fresh(server):
    """Empty the database as if nothing had ever happened; the server forgets what it knew."""
    versions = list(PublishedVersion.objects.values_list("name", "version"))
    call_command("flush", interactive=False, verbosity=0)
    # Behind no version it has seen, or it would keep its copies.
    newer = [PublishedVersion(name=name, version=version + 1) for name, version in versions]
    PublishedVersion.objects.bulk_create(newer)
    cache.delete_pattern("*")  # type: ignore[attr-defined]  # django-redis


@pytest.fixture
def used(fresh):
    """A server with a month behind it; return its busiest user."""
    return month.make()


@pytest.fixture
def provider():
    with ThreadedUpstream() as scripted:
        yield scripted


@pytest.fixture
def other_provider():
    with ThreadedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="package")
def window(browser, server):
    """One window for all tests: what never changes is loaded into its cache once."""
    context = browser.new_context(
        base_url=server.base_url, viewport=VIEWPORT, device_scale_factor=1, color_scheme="light"
    )
    context.set_default_timeout(chromium.MAX_WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def context(window: BrowserContext):
    """The window, in which nobody is logged in and nothing was ever chosen."""
    yield window
    for page in window.pages:
        if page.url.startswith("http"):
            page.evaluate("localStorage.clear()")
        page.close()
    window.clear_cookies()


@pytest.fixture(autouse=True)
def watch(context: BrowserContext):
    """Fail a test on whose pages anything was refused, missing or broken."""
    with Watch(context) as watch:
        yield watch
    assert watch.faults == []


@pytest.fixture
def console(context: BrowserContext):
    """Return what opens a page of the console as an operator with these permissions."""

    def enter(*permissions: str, path: str = "/admin/", **columns) -> Page:
        log_in(context, people.operator(*permissions, **columns))
        page = context.new_page()
        page.goto(path)
        return page

    return enter


def log_in(context: BrowserContext, user) -> None:
    """Give the browser a session, as logging in would."""
    client = Client()
    client.force_login(user)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session}
    context.add_cookies([{**cookie, "domain": "127.0.0.1", "path": "/"}])


@pytest.fixture
def shot(context: BrowserContext):
    """Return what keeps a picture of a page in docs/images, when pictures are asked for."""

    def take(name: str, page: Page | None = None) -> None:
        if not os.environ.get("AIRI_SCREENSHOTS"):
            return
        page = page or context.pages[-1]
        page.evaluate("document.fonts.ready")
        page.wait_for_timeout(300)  # whatever still slides or fades
        IMAGES.mkdir(exist_ok=True)
        taken = page.screenshot(animations="disabled", caret="hide")
        (IMAGES / f"{name}.png").write_bytes(pictures.smaller(taken))

    return take
