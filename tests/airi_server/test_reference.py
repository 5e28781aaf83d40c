"""`/docs`: every operation of the API is on it, it works without a network, and its links lead."""

from __future__ import annotations

import json
import re

import pytest
from django.conf import settings

from airi_server.api import api
from airi_server.views import reference

pytestmark = pytest.mark.asyncio
DOCS = settings.BASE_DIR / "docs"


@pytest.fixture
def operations():
    paths = api.get_openapi_schema()["paths"]
    return [
        (method.upper(), path, operation["operationId"])
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


class TestPage:
    async def test_has_every_operation_the_gateway_first(self, served, operations):
        page = (await served.get("/docs")).body.decode()

        shown = re.findall(r'<details id="(\w+)"', page)
        assert sorted(shown) == sorted(
            name for _, path, name in operations if not path.startswith("/api/v1/openai/")
        )
        assert shown[:3] == ["create_chat_completion", "list_models", "retrieve_model"]
        assert shown[-1].endswith("_router_config")

    async def test_explains_fields_as_the_document_has_them(self):
        schema = api.get_openapi_schema()
        (made,) = [
            each
            for each in reference._operations(schema, "API keys")
            if (each.method, each.path) == ("POST", "/api/v1/keys")
        ]

        fields = {field.name: field for field in made.body}
        assert (fields["name"].type, fields["name"].is_required) == ("string", True)
        assert fields["name"].about == "1 to 100 characters."
        assert fields["expiresAt"].type == "date-time or null"
        assert fields["allowedModels"].type == "list of string"
        assert fields["limits.day"].type == "integer or null"
        assert fields["limits.day"].about == "At least 1."
        ((status, answer),) = made.answers
        assert status == "201"
        assert {"id", "key", "limits.total"} <= {field.name for field in answer}
        assert made.refusals == ["400", "401", "403", "409"]

    async def test_marks_names_and_escapes_the_rest(self):
        assert reference._prose("a `b`\n<c> `<d>`") == (
            "a <code>b</code> &lt;c&gt; <code>&lt;d&gt;</code>"
        )

    async def test_fetches_nothing_from_elsewhere(self, served):
        answered = await served.get("/docs")
        page = answered.body.decode()

        assert "script" not in answered.headers["content-security-policy"]
        assert "<script" not in page
        assert " style=" not in page
        loaded = re.findall(r'(?:src|<link[^>]+href)="([^"]+)"', page)
        assert loaded == ["/favicon.ico", "/static/airi_server/front.css"]

    async def test_leads_to_what_is_there(self, served):
        page = (await served.get("/docs")).body.decode()

        ways = set(re.findall(r'<a[^>]* href="([^"]+)"', page))
        inside = {way[1:] for way in ways if way.startswith("#")}
        assert inside <= set(re.findall(r' id="([^"]+)"', page))
        outside = {way for way in ways if not way.startswith("#")}
        assert {f"/docs/{name}" for name in reference.FILES} <= outside
        for way in outside:
            assert (await served.get(way)).status == 200, way


class TestDocuments:
    @pytest.mark.parametrize("name", reference.FILES)
    async def test_are_served_as_they_are(self, served, name):
        answered = await served.get(f"/docs/{name}")

        assert (answered.status, answered.body) == (200, (DOCS / name).read_bytes())
        if name.endswith(".json"):
            json.loads(answered.body)

    @pytest.mark.parametrize("name", ["openapi.json", "settings.md", "..%2fREADME.md", "adr"])
    async def test_are_those_and_no_others(self, served, name):
        assert (await served.get(f"/docs/{name}")).status == 404
