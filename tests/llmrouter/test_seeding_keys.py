"""Keep or rotate: what becomes of the key of a slice that is merged into what is there."""

from __future__ import annotations

import orjson
import pytest

from airi_server.runtime.models import OptionRevision
from llmrouter.configuration import publishing, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import UNSPEECH_UPSTREAM
from llmrouter.configuration.seeding import requests
from llmrouter.configuration.seeding import seed as seeding
from tests.factories.llmrouter import (
    BASE_URL,
    NOON,
    chat_model,
    chat_tree,
    published,
    sealed_key,
    secret_of,
    upstream,
)
from tests.factories.slices import CANARY, azure, chat, one_of_each, unspeech

pytestmark = pytest.mark.django_db
ELSEWHERE = "v2.00000000.AAAA.AAAA.AAAA.AAAA"


def seed(*chosen, **request) -> seeding.Seeded:
    body = orjson.dumps({"slices": chosen, **request})
    return seeding.seed(requests.parse(body), by="tester", at=NOON)


def refused(*chosen, **request) -> requests.InvalidSeed:
    revisions, values = RouterRevision.objects.count(), OptionRevision.objects.count()
    with pytest.raises(requests.InvalidSeed) as refused:
        seed(*chosen, **request)
    assert RouterRevision.objects.count() == revisions
    assert OptionRevision.objects.count() == values
    assert "v3." not in f"{refused.value.message} {refused.value.details}"
    return refused.value


def path_of(refusal):
    return [fault["path"] for fault in refusal.details]


def key_of(name="chat-default") -> tree.ConfiguredKey:
    return publishing.current_tree().llm.models[name].upstreams[0].keys[0]


class TestKeep:
    @pytest.mark.parametrize("blank", [{}, {"plaintextKey": ""}, {"plaintextKey": "  "}])
    def test_a_blank_key_keeps_the_ciphertext(self, blank):
        seed(chat())
        before = key_of()

        seeded = seed({**chat(key=None), "overrideModel": "other", **blank})

        assert key_of() == before
        assert seeded.changed == ["LLM_ROUTER_CONFIG"]
        [now] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert now.override_model == "other"

    def test_a_key_that_is_kept_keeps_its_id_unless_another_is_named(self):
        seed(chat(keyEntryId="mine"))
        seeded = seed(chat(key=None))

        assert (key_of().id, seeded.applied[0]["keyEntryId"]) == ("mine", "mine")

    def test_another_id_seals_the_same_key_anew(self):
        seed(chat(keyEntryId="mine"))
        before = key_of()

        seed(chat(key=None, existingKeyEntryId="mine", keyEntryId="yours"))

        assert key_of().id == "yours"
        assert key_of().ciphertext != before.ciphertext
        assert secret_of(key_of()) == CANARY

    def test_a_disabled_key_stays_disabled(self):
        disabled = sealed_key(key_id="k1", disabled=True)
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=[disabled]))}))

        seed(chat(key=None, baseURL=BASE_URL))
        assert key_of() == disabled
        seed(chat(key=None, baseURL=BASE_URL, keyEntryId="k2"))
        assert key_of().disabled

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            (chat(key=None), "slices.0.plaintextKey"),
            (chat("known", key=None, existingKeyEntryId="k9"), "slices.0.existingKeyEntryId"),
            (azure(key=None, modelName="known"), "slices.0.plaintextKey"),
            (unspeech(key=None), "slices.0.streaming.plaintextKey"),
            (unspeech(key=None, existingKeyEntryId="k1"), "slices.0.streaming.existingKeyEntryId"),
        ],
    )
    def test_there_has_to_be_a_key_of_that_name(self, given, path):
        published(chat_tree("known"))
        refusal = refused(given)

        assert (refusal.status, refusal.code) == (400, "INVALID_BODY")
        assert path_of(refusal) == [path]

    def test_a_lost_key_can_be_kept_but_not_moved(self):
        published(chat_tree())
        lost = key_of().model_copy(update={"ciphertext": ELSEWHERE})
        broken = chat_tree(**{"chat-default": chat_model(upstream(keys=[lost]))})
        RouterRevision.objects.create(
            number=2, tree=tree.dump(broken), published_by="x", published_at=NOON
        )

        seed(chat(key=None, baseURL=BASE_URL))
        assert key_of() == lost
        assert path_of(refused(chat(key=None, baseURL=BASE_URL, keyEntryId="new"))) == [
            "slices.0.keyEntryId"
        ]

    def test_a_reset_may_keep_one_of_several(self):
        keys = [sealed_key(key_id="k1"), sealed_key(key_id="k2", secret="second")]
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=keys))}))

        seed(chat(key=None, baseURL=BASE_URL, existingKeyEntryId="k2"), mode="reset")
        assert key_of() == keys[1]

    def test_a_reset_keeps_the_first_if_none_is_named(self):
        keys = [sealed_key(key_id="k1"), sealed_key(key_id="k2", secret="second")]
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=keys))}))

        seed(chat(key=None, baseURL=BASE_URL), mode="reset")
        assert key_of() == keys[0]

    def test_the_streaming_socket_keeps_its_key_and_its_parameters(self):
        seed(unspeech())
        value = tree.dump(UNSPEECH_UPSTREAM.read())
        value["streaming"]["adapterParams"] = {"appid": "7"}
        OptionRevision.objects.update(value=value)
        before = UNSPEECH_UPSTREAM.read().streaming

        was = before.base_url
        seed(unspeech(key=None, upstreamURL=f"{was}/v2"))

        after = UNSPEECH_UPSTREAM.read().streaming
        assert after.keys == before.keys
        assert after.base_url == f"{was}/v2"
        assert after.adapter_params == {"appid": "7"}


class TestRotate:
    def test_a_value_takes_the_key_s_place(self):
        seed(chat())
        seed(chat(key="sk-new", existingKeyEntryId="openrouter-prod-1"))

        [now] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert [key.id for key in now.keys] == ["openrouter-prod-1"]
        assert secret_of(now.keys[0]) == "sk-new"

    def test_a_new_key_is_enabled(self):
        disabled = sealed_key(key_id="k1", disabled=True)
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=[disabled]))}))
        seed(chat(keyEntryId="k1"))

        assert not key_of().disabled


class TestGrouped:
    """A slice says one upstream with one key. Merging it into more would lose the others."""

    @pytest.fixture(params=["upstreams", "keys"])
    def grouped(self, request):
        keys = [sealed_key(model="a", key_id=name) for name in ("k1", "k2")]
        if request.param == "upstreams":
            model = chat_model(*(upstream(keys=[key]) for key in keys))
        else:
            model = chat_model(upstream(keys=keys))
        config = chat_tree("b", a=model)
        published(config)
        return config

    @pytest.mark.parametrize("key", [CANARY, None])
    def test_models_are_not_touched(self, grouped, key):
        refusal = refused(chat("b"), chat("a", key=key))

        assert (refusal.status, refusal.code) == (400, "INVALID_BODY")
        assert path_of(refusal) == ["slices.1"]
        assert publishing.current_tree() == grouped

    def test_models_do_not_hold_up_others(self, grouped):
        seed(chat("b", baseURL="https://other.example"))

        stored = publishing.current_tree().llm.models
        assert stored["a"] == grouped.llm.models["a"]
        assert stored["b"] != grouped.llm.models["b"]

    def test_models_can_be_replaced_by_a_reset(self, grouped):
        seed(chat("a"), mode="reset")

        assert len(publishing.current_tree().llm.models["a"].upstreams) == 1

    def test_sockets_are_not_touched(self):
        seed(unspeech())
        value = tree.dump(UNSPEECH_UPSTREAM.read())
        value["streaming"]["keys"].append({"id": "k2", "ciphertext": ELSEWHERE})
        OptionRevision.objects.update(value=value)

        assert path_of(refused(unspeech())) == ["slices.0"]
        assert seed(unspeech(), mode="reset").changed == ["UNSPEECH_UPSTREAM"]

    def test_a_speech_model_no_kind_writes_is_not_touched(self):
        seed(*one_of_each())
        config = tree.dump(publishing.current_tree())
        config["tts"]["models"]["microsoft/v1"]["upstreams"][0]["baseURL"] += "/proxy"
        config["tts"]["models"]["stepfun/v1"]["provider"] = "volcengine"
        published(tree.parse(config))

        assert path_of(refused(azure(), chat())) == ["slices.0"]
        others = refused(chat(), azure(), azure(modelName="stepfun/v1"))
        assert path_of(others) == ["slices.1", "slices.2"]
