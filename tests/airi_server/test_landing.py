"""What a person types first leads on; a program gets what it always got."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import resolve

from airi_server.views import landing

pytestmark = pytest.mark.asyncio
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FACTS = {
    "service": "airi-api",
    "message": "AIRI server: an OpenAI-compatible API on prepaid Flux.",
    "docs": "https://airi.moeru.ai/docs",
    "ui": "https://airi.moeru.ai",
}


class TestRoot:
    @pytest.mark.parametrize(
        "accept", ["*/*", "application/json", "application/json, text/plain, */*", "image/png", ""]
    )
    async def test_is_json_for_programs(self, served, accept):
        answered = await served.get("/", Accept=accept)

        assert (answered.status, answered.json()) == (200, FACTS)
        assert answered.headers["content-type"] == "application/json"
        assert answered.headers["vary"] == "Accept"

    @pytest.mark.parametrize("accept", [BROWSER, "text/html"])
    async def test_is_a_page_for_browsers_that_leads_on(self, served, accept):
        answered = await served.get("/", Accept=accept)

        assert (answered.status, answered.headers["vary"]) == (200, "Accept")
        assert answered.headers["content-type"].startswith("text/html")
        policy = answered.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'")
        assert "script" not in policy
        ways = re.findall(r'<a href="([^"]+)"', answered.body.decode())
        assert ways == ["/app/", "/docs", "/admin/"]
        for way in ways:
            assert (await served.get(way, Accept=BROWSER)).status == 200, way

    async def test_does_not_tell_of_a_console_elsewhere(self):
        with override_settings(ADMIN_PATH="x7-console"):
            page = landing._page()

        assert "x7" not in page
        assert "onsole" not in page


class TestAddressesWithoutTheirEnd:
    @pytest.mark.parametrize(
        ("typed", "way"),
        [
            ("/admin", "/admin/"),
            ("/admin?next=1", "/admin/?next=1"),
            ("/app", "/app/chat"),
            ("/app/", "/app/chat"),
            ("/docs/", "/docs"),
        ],
    )
    async def test_lead_on(self, served, typed, way):
        answered = await served.send("GET", typed, allow_redirects=False)

        assert (answered.status, answered.headers["location"]) == (302, way)

    async def test_are_only_where_the_console_is(self):
        """What is routed is the configured path: another one's `/admin` is nothing."""
        assert resolve(f"/{settings.ADMIN_PATH}").func is landing.console

    async def test_have_an_icon(self, served):
        answered = await served.get("/favicon.ico")

        assert (answered.status, answered.headers["content-type"]) == (200, "image/x-icon")
        assert answered.body.startswith(b"\0\0\1\0\3\0")
