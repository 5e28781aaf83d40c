"""A crash anywhere is one traceback in the log, and a page or JSON that says nothing about it.

`test_crashed_requests.py` walks over every endpoint of the API, and over the places of a socket
`tests/chats/test_crashed_sockets.py`. Here is a view of every other kind, and what is around views.
"""

from __future__ import annotations

import io
import re
from typing import Any, Final

import pytest
import pytest_asyncio
from django.conf import settings as configured
from django.db import OperationalError, connections
from django.http import HttpResponse
from django.template import Context, Template, engines
from django.template.response import TemplateResponse

from airi_server.kernel.threads import in_thread
from airi_server.pages import error_pages
from tests.console import rows
from tests.factories import gateway

pytestmark = pytest.mark.asyncio
CONSOLE, CHAT, LOGIN = "/admin/", "/app/chat", "/admin/login/"
ENTRIES, EXPORT = "/admin/billing/fluxtransaction/", "/admin/billing/fluxtransaction/export/json/"
KEYS, MODELS, COMPLETION = "/api/v1/keys", "/v1/models", "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


class Planted(Exception):
    """What the places of these tests raise."""


def crash(*_args, **_arguments):
    raise Planted("a canary")


async def crash_later(*_args, **_arguments):
    crash()


def away(*_args, **_arguments):
    raise OperationalError("connection to a canary failed\n\tis it running?")


class Crashing:
    """Crashes when a template asks for its text."""

    def __str__(self) -> str:
        crash()
        return ""


def in_its_template(request, *_args):
    template: Any = Template("{% autoescape off %}{{ it }}{% endautoescape %}")
    template.render(Context({"it": "a text does not crash"}))
    return TemplateResponse(request, engines["django"].from_string("{{ it }}"), {"it": Crashing()})


PLACES: Final = {
    # what crashes: (where, with what, the path that leads there)
    "a page of the console": ("airi_server.admin.start.page", crash, CONSOLE),
    "a list of the console": ("billing.admin.entries.EntryPages.line", crash, ENTRIES),
    "a template": ("airi_server.admin.start.page", in_its_template, CONSOLE),
    "what the console shows around a page": (
        "airi_server.admin.site.ConsoleSite.each_context", crash, CONSOLE
    ),
    "an export before its first byte": (
        "airi_server.pages.exports.ExportPages._write_down", crash, EXPORT
    ),
    "a page of the app": ("chats.views.chat.render", crash, CHAT),
    "a middleware before the view": (
        "django.contrib.sessions.middleware.SessionMiddleware.process_request", crash, CONSOLE
    ),
    "a middleware after the view": (
        "django.middleware.clickjacking.XFrameOptionsMiddleware.process_response", crash, CHAT
    ),
    "the resolver": ("django.core.handlers.base.BaseHandler.resolve_request", crash, CHAT),
    "the page for what is not there": ("airi_server.urls.handler404", crash, "/app/nothing"),
    "a view that is asynchronous": ("airi_server.views.landing.JsonResponse", crash, "/"),
    "a synchronous endpoint": ("accounts.api.keys.keys.of_user", crash, KEYS),
    "who is calling": ("accounts.auth.authenticate", crash_later, MODELS),
    "the lean entry": ("airi_server.web.handler.LeanASGIHandler._view", crash_later, MODELS),
    "the fast path": ("llmrouter.completions.operation.chat", crash_later, COMPLETION),
    "the choice of a way": ("airi_server.web.fast_path.takes", crash, COMPLETION),
    "the check of the host": ("airi_server.web.hosts.refusal", crash, MODELS),
    "Django's handler itself": (
        "django.core.handlers.asgi.ASGIHandler.create_request", crash, CONSOLE
    ),
}  # fmt: skip


@pytest_asyncio.fixture
async def operator(served):
    """Return what asks for a path: as an operator, or with the key of a user."""
    client = await in_thread(rows.client_of)(is_staff=True, is_superuser=True)
    caller = await gateway.caller()
    cookie = f"sessionid={client.cookies[configured.SESSION_COOKIE_NAME].value}"

    async def ask(path, method="", **more):
        if error_pages.covers(path):
            return await served.send(method or "GET", path, headers={"Cookie": cookie}, **more)
        method = method or ("POST" if path == COMPLETION else "GET")
        json = BODY if method == "POST" else None
        return await served.send(method, path, key=caller.key, json=json)

    return ask


def assert_is_page(answer, *, status):
    """Assert that a person can read it: what happened, the request id, a way on."""
    text = answer.body.decode()
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" in answer.headers
    assert re.search(r"<h1>[A-Z][^<]{8,}</h1>", text), text
    assert f"<code>{answer.headers['x-request-id']}</code>" in text
    assert re.search(r'<nav.*<a href="/[^"]*"', text, re.DOTALL)
    assert "canary" not in text
    assert "Traceback" not in text


class TestCrash:
    @pytest.mark.parametrize("what", PLACES)
    async def test_is_one_traceback_and_tells_nothing(self, operator, log, monkeypatch, what):
        place, planted, path = PLACES[what]
        with monkeypatch.context() as broken:
            broken.setattr(place, planted)
            answer = await operator(path)
        lines = await log.whole(answer.headers["x-request-id"])

        (said,) = [line for line in lines if line["level"] == "error"]
        assert [line for line in lines if "exception" in line] == [said]
        assert said["path"] == path
        assert said["exception"].endswith("Planted: a canary\n")
        assert lines[-1]["status"] == 500
        if error_pages.covers(path):
            assert_is_page(answer, status=500)
        else:
            assert answer.status == 500
            assert b"INTERNAL_SERVER_ERROR" in answer.body
            assert b"canary" not in answer.body

    async def test_in_a_context_processor_has_its_page(self, operator, log, monkeypatch):
        engine: Any = engines["django"]
        with monkeypatch.context() as broken:
            broken.setattr(engine.engine, "template_context_processors", (crash,))
            answer = await operator(CONSOLE)

        assert_is_page(answer, status=500)
        lines = await log.whole(answer.headers["x-request-id"])
        assert len([line for line in lines if "exception" in line]) == 1

    async def test_in_the_error_page_leaves_a_plain_one(self, operator, log, monkeypatch):
        monkeypatch.setattr("airi_server.pages.error_pages.render_to_string", crash)

        answer = await operator("/admin/nothing/")

        assert answer.status == 404
        assert answer.headers["x-request-id"] in answer.body.decode()
        (said,) = [
            line for line in await log.whole(answer.headers["x-request-id"]) if "exception" in line
        ]
        assert said["message"] == "Unable to render the error page"

    async def test_in_an_answer_that_is_under_way_takes_no_connection_along(
        self, operator, monkeypatch, pooled
    ):
        """A pool of ten would be empty after ten files that broke."""
        monkeypatch.setattr("airi_server.pages.exports.Export._read", crash)

        for _ in range(12):
            assert (await operator(EXPORT)).cut

        assert (await operator(CONSOLE)).status == 200

    async def test_in_an_answer_that_is_under_way_cuts_it(self, operator, log, monkeypatch):
        monkeypatch.setattr("airi_server.pages.exports.Export._read", crash)

        answer = await operator(EXPORT)

        assert (answer.status, answer.cut, answer.body) == (200, True, b"[")
        lines = await log.whole(answer.headers["x-request-id"])
        (said,) = [line for line in lines if line["level"] == "error"]
        assert (said["path"], said["exception"][-18:]) == (EXPORT, "Planted: a canary\n")

    async def test_in_the_headers_of_every_answer_is_said_once(self, operator, log, monkeypatch):
        for path in (CONSOLE, MODELS):
            with monkeypatch.context() as broken:
                broken.setattr("airi_server.web.middleware._Exchange._headers", crash)
                answer = await operator(path)

            assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert log.text.count("Planted: a canary") == 2

    async def test_that_a_view_returns_is_seen_too(self, operator, log, monkeypatch):
        monkeypatch.setattr("chats.views.chat.render", lambda *_: HttpResponse(status=502))

        answer = await operator(f"{CHAT}?secret=1")

        lines = await log.whole(answer.headers["x-request-id"])
        assert [line["level"] for line in lines] == ["error", "warning"]
        assert lines[0]["message"] == f"Bad Gateway: {CHAT}"
        assert "secret" not in log.text


class TestDatabaseAway:
    @pytest.mark.parametrize(
        ("place", "path"),
        [
            ("airi_server.admin.start.page", CONSOLE),
            ("django.contrib.sessions.middleware.SessionMiddleware.process_request", CONSOLE),
            ("django.contrib.sessions.middleware.SessionMiddleware.process_response", LOGIN),
            ("chats.views.chat.render", CHAT),
            ("accounts.auth.authenticate_sync", KEYS),
            ("accounts.auth.authenticate", MODELS),
            ("llmrouter.completions.operation.chat", COMPLETION),
        ],
    )
    async def test_is_one_line_without_a_traceback(self, operator, log, monkeypatch, place, path):
        with monkeypatch.context() as broken:
            broken.setattr(place, away)
            answer = await operator(path)
        (line,) = await log.whole(answer.headers["x-request-id"])

        assert (line["message"], line["level"], line["status"]) == ("Request ended", "warning", 503)
        assert line["reason"] == "OperationalError: connection to a canary failed is it running?"
        assert answer.headers["Retry-After"] == "1"
        if error_pages.covers(path):
            assert_is_page(answer, status=503)
        else:
            assert b"SERVICE_UNAVAILABLE" in answer.body

    async def test_for_real_has_its_page(self, operator, log, monkeypatch):
        with monkeypatch.context() as broken:
            broken.setitem(connections.settings["default"], "PORT", 9)
            answer = await operator(CONSOLE)

        assert_is_page(answer, status=503)
        (line,) = await log.whole(answer.headers["x-request-id"])
        assert line["reason"].startswith("OperationalError: ")

    async def test_under_an_answer_cuts_it_and_is_one_line(self, operator, log, monkeypatch):
        monkeypatch.setattr("airi_server.pages.exports.Export._read", away)

        answer = await operator(EXPORT)

        assert (answer.status, answer.cut) == (200, True)
        gone, _ended = await log.whole(answer.headers["x-request-id"])
        assert (gone["level"], gone["path"]) == ("warning", EXPORT)
        assert "exception" not in gone


class TestPages:
    """Errors that are no crash, where a person looks."""

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/admin/nothing/", 404),
            ("GET", "/admin/accounts/user/nobody/change/x", 404),
            ("GET", "/app/none", 404),
            ("GET", "/app/nothing", 404),
            ("GET", "/static/nothing.css", 404),
            ("GET", "/admin/logout/", 405),
            ("POST", "/admin/login/", 403),
            ("POST", "/admin/billing/grants/", 403),
            ("POST", "/app/chat", 403),
            ("GET", "/admin/auth/group/?_to_field=password", 400),
        ],
    )
    async def test_are_read_by_people(self, operator, log, method, path, status):
        answer = await operator(path, method)

        assert_is_page(answer, status=status)
        assert "exception" not in log.text

    @pytest.mark.parametrize("path", ["/admin/billing/grants/", "/app/chat"])
    async def test_of_what_is_too_long(self, operator, path):
        answer = await operator(path, "POST", data=io.BytesIO(b"x" * 1_100_000))

        assert_is_page(answer, status=413)

    async def test_of_another_host(self, served, settings):
        settings.ALLOWED_HOSTS = ["here.example"]

        for path in (CONSOLE, CHAT):
            assert_is_page(await served.get(path), status=400)

    async def test_of_too_many_fields(self, operator, served):
        page = await served.get(LOGIN)
        cookie = page.headers["Set-Cookie"].split(";")[0]
        form = {"csrfmiddlewaretoken": cookie.partition("=")[2]}
        form |= {f"f{number}": "x" for number in range(1_100)}

        answer = await served.send("POST", LOGIN, headers={"Cookie": cookie}, data=form)

        assert_is_page(answer, status=400)

    async def test_of_a_long_form_whose_session_is_over(self, served):
        answer = await served.send("POST", "/admin/billing/grants/", data=b"x" * 100_000)

        assert_is_page(answer, status=401)
        assert b'href="/admin/login/?next=/admin/billing/grants/"' in answer.body

    async def test_of_a_form_whose_session_is_over(self, served):
        page = await served.get(LOGIN)
        cookie = page.headers["Set-Cookie"].split(";")[0]
        form = {"csrfmiddlewaretoken": cookie.partition("=")[2]}

        answer = await served.send(
            "POST", "/admin/billing/grants/", headers={"Cookie": cookie}, data=form
        )

        assert_is_page(answer, status=403)
        assert b"Your session is over" in answer.body
        assert b'href="/admin/login/?next=/admin/billing/grants/"' in answer.body

    async def test_of_somebody_without_the_permission(self, served):
        client = await in_thread(rows.client_of)(is_staff=True)
        cookie = f"sessionid={client.cookies[configured.SESSION_COOKIE_NAME].value}"

        assert_is_page(await served.get("/admin/billing/grants/", Cookie=cookie), status=403)

    async def test_the_bare_address_of_the_console_leads_to_it(self, served):
        async with served.session.get(
            f"{served.base_url}/admin?x=1", allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "/admin/?x=1")

    async def test_of_what_cannot_be_shown_escape_it(self, operator):
        answer = await operator("/admin/%3Cscript%3E/")

        assert_is_page(answer, status=404)
        assert b"<script" not in answer.body


async def test_programs_get_json_whatever_they_do(operator):
    for path, method in (("/nothing", "GET"), (KEYS, "PUT"), ("/v1/nothing", "GET")):
        answer = await operator(path, method)

        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/json"
