from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from airi_server.runtime import options
from llmrouter.configuration import publishing, tree
from llmrouter.configuration.models import RouterModel
from llmrouter.routing import health
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from tests.factories.llmrouter import NOON, chat_model, chat_tree, published, sealed_key, upstream
from tests.llmrouter.admin_pages import client_of, page

pytestmark = pytest.mark.django_db
BY_NAME = "admin:llmrouter_plan"


@pytest.fixture
def viewer():
    return client_of("view_routermodel")


@pytest.fixture
def resting(monkeypatch):
    """Return what holds something against a scope of model `a`, its first key by default."""
    told: dict[str, tuple[BreakerState, ...]] = {}
    monkeypatch.setattr(health, "read_standings", lambda _revision: told)

    def rest(scope_id=None):
        key = publishing.current_table().llm["a"].upstreams[0].keys[0]
        told[scope_id or key.health_id] = (BreakerState(Blame.DEAD, 0, 9.0, 60.0, "401"),)

    return rest


def shown(client, **query):
    return client.get(reverse(BY_NAME), query)


class TestPlan:
    def test_shows_the_attempts_with_their_shares(self, viewer):
        heavy = upstream(model="a", id="heavy", priority=1, weight=3)
        light = upstream(model="a", id="light", priority=1)
        published(chat_tree(a=chat_model(heavy, light)))

        text = viewer.get(page("routermodel_plan", RouterModel.objects.get().pk)).content.decode()

        assert text.index("<td>heavy</td>") < text.index("<td>light</td>")
        assert "75 %" in text
        assert "25 %" in text
        assert "drawn by weight" in text

    def test_shows_who_is_behind_the_others_and_why(self, viewer, resting):
        published(chat_tree(a=chat_model(upstream(model="a"), upstream(model="a", id="second"))))
        resting()

        text = shown(viewer, model="a").content.decode()

        said = "<td>priority 1; 401: key dead for 60 s, tried again in 9 s"
        assert text.index("<td>second</td>") < text.index(said)

    def test_says_when_nothing_is_left(self, viewer):
        off = [sealed_key(model="a", disabled=True)]
        published(chat_tree(a=chat_model(upstream(keys=off))))

        assert "Nothing is left to try" in shown(viewer, model="a").content.decode()

    def test_an_older_revision_is_explained_as_it_was_configured(self, viewer, resting):
        published(chat_tree(a=chat_model(upstream(model="a", id="before"))))
        published(chat_tree("a"))
        resting()

        text = shown(viewer, model="a", revision="1").content.decode()

        assert "before" in text
        assert "What was held against whom then is not known" in text
        assert "401:" not in text
        assert 'id="skipped"' not in text

    def test_the_revision_of_an_instant_is_explained(self, viewer):
        published(chat_tree(a=chat_model(upstream(model="a", id="first"))))
        second = chat_tree(a=chat_model(upstream(model="a", id="second")))
        published(second, at=NOON + timedelta(hours=2))

        between = shown(viewer, model="a", at=(NOON + timedelta(hours=1)).isoformat())
        before = shown(viewer, model="a", at=(NOON - timedelta(hours=1)).isoformat())

        assert "<td>first</td>" in between.content.decode()
        assert "<td>second</td>" not in between.content.decode()
        assert before.status_code == 404

    def test_names_the_models_of_that_revision(self, viewer):
        published(chat_tree("a"))
        published(chat_tree("b"))

        response = shown(viewer, model="b", revision="1")

        assert response.status_code == 404
        assert "There is no chat model “b” in revision 1" in response.content.decode()
        assert "?model=a&amp;revision=1" in response.content.decode()

    def test_says_when_nothing_is_published(self, viewer):
        response = shown(viewer, model="a")

        assert response.status_code == 404
        assert "Nothing has been published yet" in response.content.decode()

    def test_says_that_speech_has_no_plan(self, viewer):
        key = sealed_key(model="v", base_url="https://h/v1")
        lines = (tree.TTSUpstream(base_url="https://h/v1", keys=(key,)),)
        speech = {"v": tree.TTSModel(provider="openai", upstreams=lines)}
        published(tree.Tree(tts=tree.TTSSection(models=speech)))

        text = viewer.get(page("routermodel_plan", RouterModel.objects.get().pk)).content.decode()

        assert "only chat models have a plan" in text

    @pytest.mark.parametrize(
        "query",
        [
            {"model": "a", "revision": "0"},
            {"model": "a", "revision": "9" * 18},
            {"model": "a", "revision": "9" * 500},
            {"model": "a", "revision": "-1"},
            {"model": "a", "revision": "\u0661"},
            {"model": "a", "revision": "\x00"},
            {"model": "\x00"},
            {"model": "x" * 5000},
            {"model": "<script>"},
            {},
        ],
    )
    def test_what_makes_no_sense_is_not_found(self, viewer, query):
        published(chat_tree("a"))
        response = shown(viewer, **query)

        assert response.status_code == 404
        assert "<script>" not in response.content.decode().partition("<body")[2]

    @pytest.mark.parametrize("permission", ["view_routermodel", "publish_router_config"])
    def test_is_for_who_may_see_models(self, permission):
        published(chat_tree("a"))
        by_key = page("routermodel_plan", RouterModel.objects.get().pk)

        assert shown(client_of(permission), model="a").status_code == 200
        assert client_of(permission).get(by_key).status_code == 200
        stranger = client_of("view_routerrevision")
        assert shown(stranger, model="a").status_code == 403
        assert stranger.get(by_key).status_code == 403
        assert shown(Client(), model="a").status_code == 302


class TestOverview:
    def listed(self, client):
        return client.get(page("routermodel_changelist")).content.decode()

    def test_shows_the_order_the_shares_the_keys_and_who_rests(self, viewer, resting):
        keys = [sealed_key(model="a"), sealed_key(model="a", key_id="k2", disabled=True)]
        config = chat_model(
            upstream(keys=keys, id="second", priority=5, weight=3),
            upstream(model="a", id="third", priority=5),
            upstream(model="a", id="first", priority=1),
        )
        published(chat_tree(a=config))
        second = publishing.current_table().llm["a"].upstreams[1]
        resting(second.keys[0].health_id)
        resting(second.target_id)

        text = self.listed(viewer)

        places = [text.index(f"<strong>{name}") for name in ("first", "second", "third")]
        assert places == sorted(places)
        assert "75 %" in text
        assert "25 %" in text
        assert 'k2 <code>14be2cde</code> <span class="">disabled' in text
        assert text.count("401: key dead for 60 s, tried again in 9 s") == 2

    def test_says_what_auto_means(self, viewer):
        published(chat_tree("a"))
        assert "<code>auto</code> means nothing yet" in self.listed(viewer)

        set_auto("a")
        assert "<code>auto</code> means a (" in self.listed(viewer)

        set_auto("gone")
        assert "gone, which is not a chat model" in self.listed(viewer)

    def test_says_how_to_begin(self):
        text = self.listed(client_of("publish_router_config"))

        assert "No model yet" in text
        assert f'href="{reverse("admin:llmrouter_routermodel_add")}"' in text

    def test_links_to_what_the_operator_may_do(self, viewer):
        published(chat_tree("a"))
        tester = client_of("view_routermodel", "probe_upstream")

        assert "/plan/" in self.listed(viewer)
        assert "/test/" not in self.listed(viewer)
        assert "/test/" in self.listed(tester)

    def test_says_when_an_upstream_is_out_of_use(self, viewer):
        off = [sealed_key(model="a", disabled=True)]
        published(chat_tree(a=chat_model(upstream(model="a"), upstream(keys=off, id="off"))))

        assert "out of use" in self.listed(viewer)

    def test_two_hundred_models_cost_a_dozen_statements(
        self, viewer, django_assert_max_num_queries
    ):
        published(chat_tree(*(f"m{number:03}" for number in range(200))))

        with django_assert_max_num_queries(12):
            text = self.listed(viewer)

        assert "m049" in text
        assert "m050" not in text


def set_auto(name):
    options.put("DEFAULT_CHAT_MODEL", name, by="x", at=NOON)
