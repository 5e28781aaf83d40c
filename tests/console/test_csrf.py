"""No page acts on what another site sends, with any method: generated from the URLconf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse

from accounts.models import APIKey
from airi_server.kernel.threads import in_thread
from tests.airi_server.endpoints import EXAMPLES, endpoints, routes
from tests.console import rows
from tests.console.walk import places

PLACES = places()
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
FOREIGN = "https://another.example"
LOGIN = reverse("admin:login")
MIDDLEWARE = "django.middleware.csrf.CsrfViewMiddleware"
SECRET = "x" * 32
"""What the cookie of the browser has."""
READS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET")


@dataclass(frozen=True)
class Forgery:
    """A request that a foreign page makes the browser send, and why it is refused."""

    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)
    secure: bool = False


HAS_TOKEN = {"X-CSRFToken": SECRET}
FORGERIES = {
    "no token": Forgery("CSRF token missing."),
    "a wrong token in a header": Forgery(
        "CSRF token from the 'X-Csrftoken' HTTP header incorrect.", {"X-CSRFToken": "y" * 32}
    ),
    "half a token": Forgery(
        "CSRF token from the 'X-Csrftoken' HTTP header has incorrect length.",
        {"X-CSRFToken": "x" * 16},
    ),
    "another site that has the token": Forgery(
        f"Origin checking failed - {FOREIGN} does not match any trusted origins.",
        {**HAS_TOKEN, "Origin": FOREIGN},
    ),
    "a page without an origin": Forgery(
        "Origin checking failed - null does not match any trusted origins.",
        {**HAS_TOKEN, "Origin": "null"},
    ),
    "another site's page over https": Forgery(
        f"Referer checking failed - {FOREIGN}/x does not match any trusted origins.",
        {**HAS_TOKEN, "Referer": f"{FOREIGN}/x"},
        secure=True,
    ),
    "nobody knows which page over https": Forgery(
        "Referer checking failed - no Referer.", HAS_TOKEN, secure=True
    ),
}
WRONG_IN_FORM = Forgery("CSRF token from POST incorrect.", form={"csrfmiddlewaretoken": "y" * 32})


def browser_of_a_superuser() -> Client:
    """Return who has a session and the cookie, and holds nothing back."""
    client = Client(enforce_csrf_checks=True)
    client.cookies = rows.client_of(is_staff=True, is_superuser=True).cookies
    client.cookies[settings.CSRF_COOKIE_NAME] = SECRET
    return client


def sent(client: Client, method: str, url: str, forgery: Forgery) -> int:
    how: dict[str, Any] = {"headers": forgery.headers, "secure": forgery.secure}
    if forgery.form:
        return client.post(url, forgery.form, **how).status_code
    return client.generic(method, url, **how).status_code


@contextmanager
def writes() -> Iterator[list[str]]:
    """Collect what was written to the database meanwhile."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    statements = [query["sql"].lstrip() for query in captured]
    found += [each for each in statements if not each.startswith(READS)]


def acted_on(
    urls: dict[str, str], methods: tuple[str, ...], forgery: Forgery, caplog
) -> dict[str, Any]:
    """Return which of these do anything else than refuse, for the reason that they should."""
    client, found = browser_of_a_superuser(), {}
    for name, url in urls.items():
        with writes() as written:
            answers = [sent(client, method, url, forgery) for method in methods]
        # What somebody may not use is 403 too, and a page that is not there may be anything.
        reasons = [each.args for each in caplog.records if each.name == "django.security.csrf"]
        caplog.clear()
        refused = [(forgery.reason, url)] * len(methods)
        if answers != [403] * len(methods) or reasons != refused or written:
            found[name] = (answers, reasons, written)
    return found


def console_urls() -> dict[str, str]:
    keys = rows.make().keys
    return {name: place.url(keys) for name, place in PLACES.items()}


def other_pages() -> dict[str, str]:
    """Return every page that is neither the console's nor the API's."""
    api = {name.split(" ", 1)[1] for name in endpoints()}
    found = [route for route, _ in routes(get_resolver().url_patterns, "/")]
    return {each: each for each in found if each not in api and not each.startswith("/admin/")}


@pytest.mark.django_db
class TestConsole:
    @pytest.mark.parametrize("forgery", FORGERIES)
    def test_no_page_takes_a_forgery_with_any_method(self, caplog, forgery):
        assert acted_on(console_urls(), UNSAFE, FORGERIES[forgery], caplog) == {}

    def test_no_page_takes_a_form_with_a_wrong_token(self, caplog):
        assert acted_on(console_urls(), ("POST",), WRONG_IN_FORM, caplog) == {}

    def test_all_of_it_was_looked_at(self):
        assert len(PLACES) > 100

    @pytest.mark.parametrize("where", ["header", "form"])
    def test_a_page_of_ours_with_the_token_is_taken(self, where):
        """What is refused above is refused for the token, and for nothing else."""
        made = rows.make()
        url = PLACES["accounts_apikey_disable"].url(made.keys)
        form = {"reason": "because"}
        headers = {"Origin": "http://testserver"}
        if where == "form":
            form["csrfmiddlewaretoken"] = SECRET
        else:
            headers |= HAS_TOKEN

        with writes() as written:
            answer = browser_of_a_superuser().post(url, form, headers=headers)

        assert answer.status_code == 302
        assert written
        assert APIKey.objects.get(pk=made.key.pk).disabled_at is not None


@pytest.mark.django_db
class TestOtherPages:
    @pytest.mark.parametrize("forgery", FORGERIES)
    def test_no_page_takes_a_forgery_with_any_method(self, caplog, forgery):
        pages = other_pages()

        assert acted_on(pages, UNSAFE, FORGERIES[forgery], caplog) == {}
        assert "/app/chat" in pages

    def test_only_the_api_is_exempt(self):
        api = {name.split(" ", 1)[1] for name in endpoints()}

        exempt = {
            route
            for route, view in routes(get_resolver().url_patterns, "/")
            if getattr(view.callback, "csrf_exempt", False)
        }

        assert exempt <= api


def counts() -> dict[str, int]:
    """Return how many rows there are of everything."""
    return {model._meta.db_table: model._default_manager.count() for model in apps.get_models()}


@pytest.mark.asyncio
class TestAPI:
    """It takes keys. A session alone is nobody; if it ever counts, it has to bring a token."""

    @pytest.mark.parametrize("forgery", ["no token", "another site that has the token"])
    async def test_a_session_without_a_token_does_nothing(self, served, forgery):
        client = await in_thread(browser_of_a_superuser)()
        cookies = "; ".join(f"{name}={each.value}" for name, each in client.cookies.items())
        headers = {"Cookie": cookies, **FORGERIES[forgery].headers}
        before = await in_thread(counts)()

        answers = {}
        for name in (each for each in endpoints() if each.startswith(UNSAFE)):
            path = EXAMPLES[name].path.format(x="c1")
            sent = {"headers": headers, "json": EXAMPLES[name].body or {}}
            answers[name] = (await served.send(name.split()[0], path, **sent)).status

        assert {name: got for name, got in answers.items() if got not in (401, 403)} == {}
        assert len(answers) > 15
        assert await in_thread(counts)() == before


@pytest.mark.django_db
class TestMiddleware:
    def test_is_there_before_anything_that_acts(self):
        assert MIDDLEWARE in settings.MIDDLEWARE
        assert settings.MIDDLEWARE.index(MIDDLEWARE) < settings.MIDDLEWARE.index(
            "django.contrib.auth.middleware.AuthenticationMiddleware"
        )

    def test_without_it_these_tests_fail(self, caplog):
        """The admin's own decorator would hide that it is gone; other pages have none."""
        rest = [each for each in settings.MIDDLEWARE if each != MIDDLEWARE]

        with override_settings(MIDDLEWARE=rest):
            found = acted_on(other_pages(), UNSAFE, FORGERIES["no token"], caplog)

        assert "/app/chat" in found


@pytest.mark.asyncio
class TestLogin:
    """As a browser sends it to a server, past the way that API requests take."""

    async def post(self, served, token, **headers):
        page = await served.get(LOGIN)
        cookie = page.headers["Set-Cookie"].split(";")[0]
        sent = {"Cookie": cookie, **headers}
        given = cookie.removeprefix("csrftoken=") if token else ""
        form = {"username": "x@example.com", "password": "y", "csrfmiddlewaretoken": given}
        return await served.send("POST", LOGIN, headers=sent, data=form)

    async def test_takes_the_token_of_its_page(self, served):
        assert (await self.post(served, token=True)).status == 200

    async def test_takes_nothing_without_it(self, served):
        assert (await self.post(served, token=False)).status == 403

    async def test_takes_nothing_from_another_site_that_has_it(self, served):
        assert (await self.post(served, token=True, Origin=FOREIGN)).status == 403
