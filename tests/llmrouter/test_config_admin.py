from __future__ import annotations

import pytest
from django.urls import reverse

from airi_server.kernel import sealing
from airi_server.runtime.audit import AuditEntry
from llmrouter.configuration import publishing, rows
from llmrouter.configuration.models import (
    RouterDefaults,
    RouterKey,
    RouterModel,
    RouterRevision,
    RouterUpstream,
)
from tests.factories.llmrouter import chat_model, chat_tree, published, secret_of, upstream
from tests.llmrouter.admin_pages import (
    ADD,
    CANARY,
    NEW,
    change_page,
    client_of,
    errors_of,
    page,
    save,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator():
    return client_of("publish_router_config")


def form_value(response, name):
    return response.context["adminform"].form[name].value()


class TestModelPage:
    def test_adding_a_model_publishes_it(self, operator):
        response = save(operator, reverse(ADD), **NEW)

        assert response.status_code == 302, errors_of(response)
        revision = RouterRevision.objects.get()
        assert response["Location"] == page("routerrevision_change", revision.pk)
        assert (revision.note, revision.published_by) == ("because", "op0@example.com")
        config = publishing.current_tree()
        assert rows.read() == config
        key = config.llm.models["chat-default"].upstreams[0].keys[0]
        assert secret_of(key) == CANARY
        assert RouterKey.objects.get().fingerprint == sealing.fingerprint(CANARY)
        assert AuditEntry.objects.filter(action="llmrouter.publish_router_config").count() == 1

    def test_saving_without_a_change_publishes_nothing(self, operator):
        published()

        assert save(operator, change_page()).status_code == 302
        assert RouterRevision.objects.count() == 1

    def test_editing_publishes_and_keeps_the_keys(self, operator):
        published()
        key = RouterKey.objects.get()

        save(operator, change_page(), **{"upstreams-0-weight": "5", "max_output_tokens": "7"})

        stored = publishing.current_tree().llm.models["chat-default"]
        assert (stored.upstreams[0].weight, stored.max_output_tokens) == (5, 7)
        assert RouterKey.objects.get().sealed == key.sealed

    def test_a_known_key_id_rotates_that_key_and_a_new_one_comes_last(self, operator):
        published()
        for key_id in ("k1", "k2"):
            save(
                operator,
                change_page(),
                **{"upstreams-0-key_id": key_id, "upstreams-0-key_value": CANARY},
            )

        keys = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys
        assert [key.id for key in keys] == ["k1", "k2"]
        for key in keys:
            assert secret_of(key) == CANARY

    def test_upstreams_trade_places(self, operator):
        published(chat_tree(a=chat_model(upstream(model="a", id="x"), upstream(model="a", id="y"))))

        places = {"upstreams-0-position": "2", "upstreams-1-position": "1"}
        response = save(operator, change_page("a"), **places)

        assert response.status_code == 302, errors_of(response)
        stored = publishing.current_tree().llm.models["a"].upstreams
        assert [each.id for each in stored] == ["y", "x"]

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("name", "a|b", "ust match"),
            ("provider", "azure", "A chat model has none"),
            ("trigger_codes", "99", "ust be at least 300"),
            ("max_output_tokens", "0", "ust be at least 1"),
            ("note", "", "required"),
            ("upstreams-0-base_url", "https://user:pw@h/v1", "user name or a password"),
            ("upstreams-0-base_url", "gopher://h", "absolute http"),
            ("upstreams-0-header_template", "Bearer", "{KEY} exactly once"),
            ("upstreams-0-timeout_ms", "0", "ust be at least 1"),
            ("upstreams-0-adapter_params", '{"a": {"b": {"c": {"d": {}}}}}', "four deep"),
            ("upstreams-0-key_id", "a|b", "ust match"),
            ("upstreams-0-key_id", "", "Name the key"),
            ("upstreams-0-key_value", "", "Enter the key"),
            ("upstreams-0-key_value", f"{CANARY} ", "without white space"),
            ("upstreams-0-key_value", "ключ", "printable ASCII"),
            ("upstreams-0-position", "0", "greater than or equal to 1"),
        ],
    )
    def test_shows_a_fault_at_its_field_and_writes_nothing(self, operator, field, value, message):
        response = save(operator, reverse(ADD), **NEW | {field: value})

        assert response.status_code == 200
        assert message in errors_of(response)
        assert CANARY not in response.content.decode()
        assert not RouterModel.objects.exists()

    def test_refuses_a_model_without_an_upstream(self, operator):
        response = save(operator, reverse(ADD), **NEW | {"upstreams-TOTAL_FORMS": "0"})

        assert "at least 1" in errors_of(response)

    def test_refuses_a_speech_model_without_a_provider(self, operator):
        response = save(operator, reverse(ADD), **NEW | {"surface": "tts"})

        assert "A speech model needs a provider" in errors_of(response)

    def test_adds_a_speech_model(self, operator):
        speech = {"surface": "tts", "provider": "azure"}
        params = {"upstreams-0-adapter_params": '{"region": "eastasia"}'}
        response = save(operator, reverse(ADD), **NEW | speech | params)

        assert response.status_code == 302, errors_of(response)
        stored = publishing.current_tree().tts.models["chat-default"]
        assert stored.upstreams[0].adapter_params == {"region": "eastasia"}

    def test_refuses_slugs_that_stand_twice(self, operator):
        published(chat_tree(a=chat_model(upstream(model="a"), upstream(model="a"))))

        slugs = {"upstreams-0-slug": "x", "upstreams-1-slug": "x"}
        assert "slugs" in errors_of(save(operator, change_page("a"), **slugs))

    def test_a_refusal_by_the_publisher_rolls_the_rows_back(self, operator):
        published()
        RouterUpstream.objects.update(base_url="http://u:p@h")  # behind everybody's back

        response = save(operator, page("routerdefaults_change", 1), idle_timeout_ms="5")

        assert "Nothing was saved" in response.content.decode()
        assert form_value(response, "idle_timeout_ms") == "5"
        assert RouterDefaults.objects.get().idle_timeout_ms is None
        assert publishing.current_number() == 1

    def test_deleting_publishes(self, operator):
        published(chat_tree("a", "b"))
        pk = RouterModel.objects.get(name="a").pk

        answer = operator.post(page("routermodel_delete", pk), {"post": "yes"})

        assert answer["Location"] == page("routerrevision_change", 2)
        assert set(publishing.current_tree().llm.models) == {"b"}
        assert RouterRevision.objects.get(number=2).note == "a deleted"

    def test_deleting_several_publishes_once(self, operator):
        published(chat_tree("a", "b", "c"))
        chosen = list(RouterModel.objects.exclude(name="c").values_list("pk", flat=True))
        request = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}

        answer = operator.post(page("routermodel_changelist"), request)

        assert answer["Location"] == page("routerrevision_change", 2)
        assert set(publishing.current_tree().llm.models) == {"c"}
        assert publishing.current_number() == 2
