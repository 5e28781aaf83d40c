"""Whoever may edit a route must not be able to send its keys to a host of their own."""

from __future__ import annotations

import orjson
import pytest

from llmrouter.configuration import publishing, rows, seeding, slices, tree
from llmrouter.models import RouterRevision, RouterUpstream
from tests.factories.llmrouter import NOON, chat_model, chat_tree, published, sealed_key, upstream
from tests.factories.slices import chat
from tests.llmrouter.admin_pages import change_page, client_of, errors_of, page, save

pytestmark = pytest.mark.django_db
HERE = "https://provider.example/v1"
ELSEWHERE = "https://attacker.example/v1"


def tree_at(base_url, *, model="chat-default", keys=None):
    return chat_tree(**{model: chat_model(upstream(base_url=base_url, keys=keys))})


@pytest.fixture
def keys():
    """The keys of the configuration in force."""
    keys = (sealed_key(key_id="k1"), sealed_key(key_id="k2"))
    published(tree_at(HERE, keys=keys))
    return keys


def refused(config):
    with pytest.raises(tree.InvalidTree) as refusal:
        publishing.publish(config, note="", by="tester", at=NOON)
    assert RouterRevision.objects.count() == 1
    return refusal.value.details


class TestPublishing:
    @pytest.mark.parametrize(
        "elsewhere",
        [ELSEWHERE, "http://provider.example/v1", "https://provider.example:8443/v1"],
    )
    def test_a_key_that_stays_stays_with_its_host(self, keys, elsewhere):
        faults = refused(tree_at(elsewhere, keys=keys))

        assert {fault["path"] for fault in faults} == {
            "llm.models.chat-default.upstreams.0.baseURL"
        }
        assert "https://provider.example:443" in faults[0]["message"]

    def test_one_key_that_stays_is_enough(self, keys):
        refused(tree_at(ELSEWHERE, keys=(sealed_key(key_id="k1"), keys[1])))

    def test_a_second_upstream_may_not_borrow_it(self, keys):
        borrowed = chat_model(
            upstream(base_url=HERE, keys=keys), upstream(base_url=ELSEWHERE, keys=keys)
        )

        refused(chat_tree(**{"chat-default": borrowed}))

    @pytest.mark.parametrize(
        "same", ["https://PROVIDER.example/v2", "https://provider.example:443"]
    )
    def test_another_path_of_its_host_is_its_host(self, keys, same):
        assert publishing.publish(tree_at(same, keys=keys), note="", by="tester", at=NOON)

    def test_a_key_that_is_entered_again_may_go_anywhere(self, keys):
        entered = (sealed_key(key_id="k1"), sealed_key(key_id="k2"))

        assert publishing.publish(tree_at(ELSEWHERE, keys=entered), note="", by="tester", at=NOON)

    def test_the_way_back_to_an_older_revision_is_open(self, keys):
        entered = (sealed_key(key_id="k1"),)
        publishing.publish(tree_at(ELSEWHERE, keys=entered), note="", by="tester", at=NOON)

        assert publishing.republish(1, note="back", by="tester", at=NOON)
        assert rows.read().llm.models["chat-default"].upstreams[0].base_url == HERE


class TestSeeding:
    def seed(self, **fields):
        return seeding.seed(
            slices.parse(orjson.dumps({"slices": [chat(**fields)]})), by="tester", at=NOON
        )

    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "another-id"}])
    def test_a_key_that_is_kept_stays_with_its_host_also_under_another_id(self, more):
        self.seed(baseURL=HERE)

        with pytest.raises(slices.InvalidSeed) as refusal:
            self.seed(key=None, baseURL=ELSEWHERE, **more)

        assert [fault["path"] for fault in refusal.value.details] == ["slices.0.plaintextKey"]
        assert publishing.current_tree().llm.models["chat-default"].upstreams[0].base_url == HERE

    def test_a_key_that_is_given_may_go_anywhere(self):
        self.seed(baseURL=HERE)

        assert self.seed(baseURL=ELSEWHERE, key="sk-another").changed == ["LLM_ROUTER_CONFIG"]

    def test_the_same_key_may_too_if_it_is_given_again(self):
        self.seed(baseURL=HERE)

        assert self.seed(baseURL=ELSEWHERE).changed == ["LLM_ROUTER_CONFIG"]


class TestPages:
    def test_the_field_says_it_and_nothing_is_published(self, keys):
        client = client_of("publish_router_config")

        answer = save(client, change_page(), **{"upstreams-0-base_url": ELSEWHERE})

        assert "This key was entered for https://provider.example:443" in errors_of(answer)
        assert RouterUpstream.objects.get().base_url == HERE

    def test_the_page_of_the_upstream_refuses_it_too(self, keys):
        client = client_of("publish_router_config")
        url = page("routerupstream_change", RouterUpstream.objects.get().pk)

        answer = save(client, url, base_url=ELSEWHERE)

        assert "This key was entered for" in answer.content.decode()
        assert RouterUpstream.objects.get().base_url == HERE
        assert RouterRevision.objects.count() == 1

    def test_a_test_of_the_upstream_does_not_send_it_either(self, keys):
        client = client_of("publish_router_config", "probe_upstream")
        changed = {"upstreams-0-base_url": ELSEWHERE, "_probe": "upstreams-0"}

        answer = save(client, change_page(), **changed)

        assert "This key was entered for" in answer.content.decode()
