from __future__ import annotations

import pytest
from django.db import connection
from django.urls import reverse

from airi_server.runtime.audit import AuditEntry
from llmrouter.configuration import publishing
from llmrouter.configuration.models import RouterKey, RouterModel, RouterRevision, RouterUpstream
from tests.factories.llmrouter import chat_model, chat_tree, published, upstream
from tests.llmrouter.admin_pages import (
    ADD,
    BY_SCRIPT,
    CANARY,
    NEW,
    change_page,
    client_of,
    errors_of,
    form_of,
    page,
    posted_by,
    save,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator():
    return client_of("publish_router_config")


def kept() -> tuple[object, ...]:
    """Return all that a save may change; `announced` counts what every instance was told."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version FROM published_version WHERE name = 'router'")
        announced = cursor.fetchall()
    models = (RouterModel, RouterUpstream, RouterKey, RouterRevision, AuditEntry)
    return (announced, *(sorted(map(repr, model.objects.values())) for model in models))


class TestPreview:
    @pytest.mark.parametrize("headers", [None, BY_SCRIPT])
    def test_shows_what_would_change_and_keeps_nothing(
        self, operator, headers, django_capture_on_commit_callbacks
    ):
        published()
        before = kept()

        with django_capture_on_commit_callbacks() as told:
            response = save(
                operator, change_page(), headers, max_output_tokens="7", _preview="1", _save="1"
            )

        shown = response.content.decode()
        assert "This would become revision 2" in shown
        assert "- llm.models.chat-default.maxOutputTokens: 16384" in shown
        assert "+ llm.models.chat-default.maxOutputTokens: 7" in shown
        assert kept() == before
        assert told == []

    def test_comes_alone_to_the_script_and_above_the_form_without(self, operator):
        published()
        alone = save(operator, change_page(), BY_SCRIPT, max_output_tokens="7", _preview="1")
        above = save(operator, change_page(), max_output_tokens="7", _preview="1")

        assert alone.headers["X-Fragment"] == "preview"
        assert "<form" not in alone.content.decode()
        assert above.content.decode().count("id=publish>") == 1
        assert posted_by(above)["max_output_tokens"] == "7"

    def test_can_be_published_as_it_is_shown(self, operator):
        published()
        shown = save(operator, change_page(), max_output_tokens="7", _preview="1")

        response = operator.post(change_page(), posted_by(shown), follow=True)

        assert "Published revision 2." in response.content.decode()
        assert publishing.current_tree().llm.models["chat-default"].max_output_tokens == 7

    def test_says_when_nothing_would_change(self, operator):
        published()
        response = save(operator, change_page(), BY_SCRIPT, _preview="1")

        assert "Nothing would change" in response.content.decode()

    @pytest.mark.parametrize("headers", [None, BY_SCRIPT])
    def test_of_a_fault_is_the_page_with_the_fault_at_its_field(self, operator, headers):
        published()
        response = save(operator, change_page(), headers, max_output_tokens="0", _preview="1")

        assert "Must be at least 1" in errors_of(response)
        assert "X-Fragment" not in response.headers
        assert publishing.current_number() == 1

    def test_of_a_new_model_with_a_key_shows_no_key(self, operator, caplog):
        caplog.set_level("DEBUG")
        pages = [
            save(operator, reverse(ADD), headers, **NEW | {"_preview": "1"}).content.decode()
            for headers in (None, BY_SCRIPT)
        ]

        assert all("This would become revision 1" in shown for shown in pages)
        assert CANARY not in "".join(pages) + caplog.text
        assert not RouterModel.objects.exists()

    def test_of_what_the_publisher_refuses_says_why(self, operator):
        published()
        RouterUpstream.objects.update(base_url="http://u:p@h")  # behind everybody's back

        url = page("routerdefaults_change", 1)
        shown = save(operator, url, BY_SCRIPT, idle_timeout_ms="5", _preview="1").content.decode()

        assert "Nothing was saved" in shown
        assert "user name or a password" in shown
        assert "u:p" not in shown

    def test_is_refused_without_the_permission(self):
        published()
        viewer = client_of("view_routermodel")

        assert "preview-changes" not in viewer.get(change_page()).content.decode()
        assert viewer.post(change_page(), {**NEW, "_preview": "1"}).status_code == 403

    def test_is_what_the_first_button_does(self, operator):
        published()
        shown = operator.get(change_page()).content.decode()

        assert shown.index('name="_preview"') < shown.index("upstreams-0-base_url")
        for part in ("id=preview-changes", '<dialog id="preview"', "console/router.js"):
            assert part in shown


class TestRace:
    def test_keeps_what_was_entered_and_goes_on_from_the_newest(self, operator):
        published(chat_tree("a", "b"))
        values = {**form_of(operator, change_page("a")), "note": "x", "max_output_tokens": "7"}
        save(operator, change_page("b"), max_output_tokens="5", note="meanwhile")

        refused = operator.post(change_page("a"), values)
        again = operator.post(change_page("a"), posted_by(refused))

        assert "Revision 2 was published by op0@example.com (meanwhile)" in errors_of(refused)
        assert posted_by(refused)["max_output_tokens"] == "7"
        assert again.status_code == 302
        models = publishing.current_tree().llm.models
        assert (models["a"].max_output_tokens, models["b"].max_output_tokens) == (7, 5)

    def test_refuses_lines_that_another_revision_has_replaced(self, operator):
        published()
        values = {**form_of(operator, change_page()), "note": "x", "max_output_tokens": "7"}
        published(chat_tree("chat-default", "b"))

        refused = operator.post(change_page(), values)
        again = operator.post(change_page(), posted_by(refused))

        assert "Revision 2 was published" in errors_of(refused)
        assert "Another revision has replaced these lines" in errors_of(again)
        assert publishing.current_number() == 2


class TestOrder:
    def test_numbers_are_an_order_and_are_counted_anew(self, operator):
        lines = [upstream(model="a", id=name) for name in "xyz"]
        published(chat_tree(a=chat_model(*lines)))

        places = {"upstreams-0-position": "30", "upstreams-1-position": "7"}
        response = save(operator, change_page("a"), **places, **{"upstreams-2-position": ""})

        assert response.status_code == 302, errors_of(response)
        stored = RouterUpstream.objects.order_by("position").values_list("slug", "position")
        assert list(stored) == [("y", 1), ("x", 2), ("z", 3)]

    def test_the_page_lists_them_in_their_order(self, operator):
        published(chat_tree(a=chat_model(*(upstream(model="a", id=name) for name in "xy"))))
        save(operator, change_page("a"), **{"upstreams-0-position": "3"})

        assert form_of(operator, change_page("a"))["upstreams-0-slug"] == "y"


class TestHostileInput:
    @pytest.mark.parametrize(
        "changes",
        [
            {"note": "a\x00b"},
            {"note": "x" * 201},
            {"name": "n\x00"},
            {"upstreams-0-position": "9" * 30},
            {"upstreams-0-weight": "-1"},
            {"upstreams-0-priority": "9" * 30},
            {"upstreams-0-base_url": "http://[::1"},
            {"upstreams-0-key_id": "k\x00"},
            {"upstreams-0-adapter_params": "{"},
            {"expected": "9" * 40},
            {"expected": "x"},
            {"upstreams-TOTAL_FORMS": "x"},
            {"trigger_codes": "9" * 40},
        ],
    )
    @pytest.mark.parametrize("button", ["_preview", "_save"])
    def test_is_a_fault_on_the_form(self, operator, changes, button):
        response = save(operator, reverse(ADD), **NEW | changes | {button: "1"})

        assert response.status_code == 200
        assert not RouterModel.objects.exists()
