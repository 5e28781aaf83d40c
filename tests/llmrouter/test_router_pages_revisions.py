from __future__ import annotations

import threading

import pytest
from django.db import connection

from airi_server.runtime.audit import AuditEntry
from llmrouter.configuration import publishing
from llmrouter.configuration.models import RouterRevision
from tests.factories.llmrouter import chat_tree, published
from tests.llmrouter.admin_pages import client_of, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator():
    return client_of("publish_router_config")


def two():
    published(chat_tree("a"))
    published(chat_tree("b"))


def again(client, number=1, **changes):
    values = {"note": "b is broken", "expected": "2", **changes}
    return client.post(page("routerrevision_publish_again", number), values, follow=True)


class TestPublishAgain:
    def test_asks_first_and_shows_what_would_change_against_what_is_in_force(self, operator):
        two()
        response = operator.get(page("routerrevision_publish_again", 1))

        text = response.content.decode()
        assert "against revision 2" in text
        assert "- llm.models.b.upstreams.0.baseURL" in text
        assert "+ llm.models.a.upstreams.0.baseURL" in text
        assert "v3." not in text
        assert publishing.current_number() == 2

    def test_puts_the_older_one_in_force(self, operator):
        two()
        response = again(operator)

        newest = publishing.newest()
        assert newest is not None
        assert (newest.number, newest.note) == (3, "b is broken")
        assert set(publishing.current_tree().llm.models) == {"a"}
        assert "Published revision 3." in response.content.decode()
        entry = AuditEntry.objects.get(subject_id="3")
        assert (entry.action, entry.actor) == (
            "llmrouter.publish_router_config",
            newest.published_by,
        )

    def test_a_second_click_publishes_nothing(self, operator):
        two()
        again(operator)
        response = again(operator)

        assert "It is in force already." in response.content.decode()
        assert publishing.current_number() == 3

    def test_refuses_when_something_else_was_published_and_shows_the_new_changes(self, operator):
        two()
        published(chat_tree("c"))

        refused = again(operator)

        text = refused.content.decode()
        assert "Revision 3 was published in between" in text
        assert "- llm.models.c.upstreams.0.baseURL" in text
        assert publishing.current_number() == 3
        assert refused.context["form"]["expected"].value() == "3"
        again(operator, expected="3")
        assert set(publishing.current_tree().llm.models) == {"a"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"note": ""},
            {"note": "x" * 201},
            {"note": "\x00"},
            {"expected": ""},
            {"expected": "x"},
            {"expected": "9" * 40},
        ],
    )
    def test_refuses_what_is_missing_or_makes_no_sense(self, operator, changes):
        two()
        response = again(operator, **changes)

        assert response.status_code == 200
        assert publishing.current_number() == 2

    @pytest.mark.parametrize("number", ["7", "9" * 30, "x", "%00"])
    def test_an_unknown_revision_is_not_found(self, operator, number):
        two()
        url = page("routerrevision_publish_again", 1).replace("/1/", f"/{number}/")

        assert operator.get(url).status_code == 404

    def test_is_offered_to_who_may(self, operator):
        two()
        url = page("routerrevision_publish_again", 1)

        assert url in operator.get(page("routerrevision_change", 1)).content.decode()

    def test_shows_its_changes_by_sign(self, operator):
        two()
        text = operator.get(page("routerrevision_change", 2)).content.decode()

        assert '<span class="added">+ llm.models.b' in text
        assert '<span class="removed">- llm.models.a' in text


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_publishes():
    operator = client_of("publish_router_config")
    two()
    start = threading.Barrier(2)

    def click():
        try:
            start.wait(5)
            again(operator)
        finally:
            connection.close()

    clicks = [threading.Thread(target=click) for _ in range(2)]
    for thread in clicks:
        thread.start()
    for thread in clicks:
        thread.join()

    assert RouterRevision.objects.count() == 3
