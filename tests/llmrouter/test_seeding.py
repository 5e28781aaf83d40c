from __future__ import annotations

import orjson
import pytest

from airi_server.runtime.models import OptionRevision
from airi_server.runtime.options import ConfigNotSet
from llmrouter.configuration import publishing, rows, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import (
    DEFAULT_CHAT_MODEL,
    DEFAULT_TTS_MODEL,
    DEFAULT_TTS_VOICES,
    UNSPEECH_UPSTREAM,
)
from llmrouter.configuration.seeding import desired, requests
from llmrouter.configuration.seeding import seed as seeding
from tests.factories.llmrouter import NOON, chat_model, chat_tree, published, secret_of, upstream
from tests.factories.slices import CANARY, azure, chat, dashscope, stepfun, unspeech

pytestmark = pytest.mark.django_db


def seed(*chosen, **request) -> seeding.Seeded:
    body = orjson.dumps({"slices": chosen, **request})
    return seeding.seed(requests.parse(body), by="tester", at=NOON)


def params_of(config):
    return {name: m.upstreams[0].adapter_params for name, m in config.tts.models.items()}


class TestSeed:
    def test_merging_keeps_other_models_and_the_defaults(self):
        config = chat_tree("a", "b").model_copy(
            update={"defaults": tree.Defaults(full_chain_timeout_ms=5)}
        )
        published(config)

        seed(chat("b"))

        stored = publishing.current_tree()
        assert stored.llm.models["a"] == config.llm.models["a"]
        assert stored.llm.models["b"].upstreams[0].base_url == "https://openrouter.ai/api/v1"
        assert stored.defaults == config.defaults
        assert rows.read() == stored

    def test_resetting_keeps_only_what_is_given(self):
        config = chat_tree("a", "b").model_copy(
            update={"defaults": tree.Defaults(full_chain_timeout_ms=5)}
        )
        published(config)

        seed(chat("c"), mode="reset")

        stored = publishing.current_tree()
        assert set(stored.llm.models) == {"c"}
        assert stored.defaults == tree.Defaults()

    def test_builds_each_kind_as_the_contract_says(self):
        seed(chat(), azure(), dashscope(region="cn"))

        stored = publishing.current_tree()
        [upstream] = stored.llm.models["chat-default"].upstreams
        assert (upstream.override_model, upstream.keys[0].id) == (
            "openai/gpt-4o-mini",
            "openrouter-prod-1",
        )
        speech = stored.tts.models["microsoft/v1"]
        url = "https://eastasia.tts.speech.microsoft.com/cognitiveservices/v1"
        assert (speech.provider, speech.upstreams[0].base_url) == ("azure", url)
        assert speech.upstreams[0].adapter_params == {"region": "eastasia"}
        assert speech.upstreams[0].keys[0].id == "azure-tts-prod-1"
        voice = stored.tts.models["alibaba/cosyvoice-v2"].upstreams[0]
        path = "/api/v1/services/audio/tts/SpeechSynthesizer"
        assert voice.base_url == f"https://dashscope.aliyuncs.com{path}"
        assert voice.adapter_params == {"model": "cosyvoice-v2"}
        assert secret_of(voice.keys[0], model="alibaba/cosyvoice-v2") == CANARY

    def test_seeding_twice_publishes_once(self):
        request = {"defaults": {"chatModel": "chat-default", "ttsModel": "microsoft/v1"}}
        first = seed(chat(), azure(), unspeech(), **request)
        second = seed(chat(), azure(), unspeech(), **request)

        names = ["LLM_ROUTER_CONFIG", "UNSPEECH_UPSTREAM", "DEFAULT_CHAT_MODEL"]
        assert first.changed == [*names, "DEFAULT_TTS_MODEL"]
        assert (second.changed, second.diff) == ([], "")
        assert RouterRevision.objects.count() == 1
        assert OptionRevision.objects.count() == 3

    def test_another_key_is_sealed_anew(self):
        seed(chat())
        before = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys[0]

        seed(chat(key="sk-other"))

        after = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys[0]
        assert after.ciphertext != before.ciphertext
        assert secret_of(after) == "sk-other"

    def test_keeps_what_no_slice_can_name(self):
        was = upstream(model="a", timeout_ms=7, weight=3, priority=2, id="first")
        triggers = tree.Triggers(http_codes=(500,), on_timeout=False)
        tuned = chat_model(was, max_output_tokens=99, fallback_triggers=triggers)
        published(chat_tree(a=tuned))

        seed(chat("a", baseURL="https://other.example/v1"))

        model = publishing.current_tree().llm.models["a"]
        [now] = model.upstreams
        assert now.base_url == "https://other.example/v1"
        assert (now.timeout_ms, now.weight, now.priority, now.id) == (7, 3, 2, "first")
        assert (model.max_output_tokens, model.fallback_triggers) == (99, triggers)

    def test_keeps_an_adapter_s_other_parameters_until_the_provider_changes(self):
        seed(azure(), stepfun(upstreamModel="fast"))
        tuned = tree.dump(publishing.current_tree())
        for name in ("microsoft/v1", "stepfun/v1"):
            tuned["tts"]["models"][name]["upstreams"][0]["adapterParams"]["defaultVoice"] = "jenny"
        published(tree.parse(tuned))

        seed(azure(region="westus"), stepfun())
        params = params_of(publishing.current_tree())
        assert params["microsoft/v1"] == {"region": "westus", "defaultVoice": "jenny"}
        assert params["stepfun/v1"] == {"defaultVoice": "jenny"}

        seed(dashscope(modelName="microsoft/v1"))
        assert params_of(publishing.current_tree())["microsoft/v1"] == {"model": "cosyvoice-v2"}

    def test_resetting_starts_a_model_anew(self):
        published(chat_tree(a=chat_model(upstream(model="a", timeout_ms=7), max_output_tokens=99)))
        seed(chat("a"), mode="reset")

        model = publishing.current_tree().llm.models["a"]
        assert (model.max_output_tokens, model.upstreams[0].timeout_ms) == (16_384, None)

    def test_a_dry_run_writes_nothing_and_shows_no_secret(self):
        seeded = seed(chat(), unspeech(), dryRun=True, defaults={"chatModel": "chat-default"})

        key = seeded.preview["LLM_ROUTER_CONFIG"]["llm"]["models"]["chat-default"]["upstreams"][0][
            "keys"
        ][0]
        assert key["ciphertext"].startswith("<ciphertext: ")
        assert seeded.preview["DEFAULT_CHAT_MODEL"] == "chat-default"
        assert seeded.changed == []
        assert not RouterRevision.objects.exists()
        assert not OptionRevision.objects.exists()

    def test_the_result_holds_neither_key_nor_ciphertext(self):
        seeded = seed(chat(), azure(), unspeech())

        assert CANARY not in repr(seeded)
        assert "v3." not in repr(seeded)
        assert seeded.applied[0] == {
            "kind": "openrouter",
            "target": "llm-router",
            "surface": "llm",
            "modelName": "chat-default",
            "keyEntryId": "openrouter-prod-1",
        }
        assert seeded.applied[2]["keyEntryId"] == "volcengine-prod-1"

    def test_unspeech_keeps_its_models_and_drops_its_socket(self):
        seed(unspeech())
        value = tree.dump(UNSPEECH_UPSTREAM.read())
        value["streaming"]["models"] = [{"id": "m"}]
        OptionRevision.objects.update(value=value)

        seed(unspeech())
        stored = UNSPEECH_UPSTREAM.read()
        assert [model.id for model in stored.streaming.models] == ["m"]
        assert secret_of(stored.streaming.keys[0], model=tree.STREAMING_TTS) == CANARY

        seed(unspeech(streaming=False))
        assert UNSPEECH_UPSTREAM.read().streaming is None

    def test_a_bad_key_leaves_everything_as_it_was(self):
        with pytest.raises(requests.InvalidSeed) as refused:
            seed(unspeech(), chat(key="two words"))

        [fault] = refused.value.details
        assert fault["path"] == "slices.1.plaintextKey"
        assert "two words" not in f"{refused.value.message} {fault}"
        assert not OptionRevision.objects.exists()
        assert not RouterRevision.objects.exists()


class TestDefaults:
    def test_of_voices_are_merged_by_model(self):
        seed(defaults={"ttsVoices": {"a": {"en": "x"}, "b": {"en": "y"}}})
        seed(defaults={"ttsVoices": {"b": {"de": "z"}}})
        assert DEFAULT_TTS_VOICES.read() == {"a": {"en": "x"}, "b": {"de": "z"}}

        seed(mode="reset", defaults={"ttsVoices": {"c": {}}})
        assert DEFAULT_TTS_VOICES.read() == {"c": {}}

    def test_alone_leave_the_models_alone(self):
        published(chat_tree("a"))

        for mode in ("merge", "reset"):
            seed(mode=mode, defaults={"chatModel": "b"})

        assert set(publishing.current_tree().llm.models) == {"a"}
        assert DEFAULT_CHAT_MODEL.read() == "b"

    def test_may_be_empty(self):
        assert seed(defaults={}).changed == []


class TestTooMany:
    def test_models_are_refused(self):
        [limit] = tree.LLMSection.model_fields["models"].metadata
        full = tree.Tree(
            llm=tree.LLMSection(
                models=dict.fromkeys((str(n) for n in range(limit.max_length)), chat_model())
            )
        )
        with pytest.raises(tree.InvalidTree, match="2000"):
            desired.merged(full, chat_tree("another"))


class TestRouteChat:
    def route(self, **fields):
        given = {
            "model_name": "chat-default",
            "base_url": "http://127.0.0.1:9/v1",
            "override_model": "tiny",
            "plaintext_key": CANARY,
            "key_id": "local",
        }
        return seeding.route_chat(**given | fields, by="run", at=NOON)

    def test_routes_and_sets_what_auto_means(self):
        self.route()

        [upstream] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert (upstream.base_url, upstream.override_model) == ("http://127.0.0.1:9/v1", "tiny")
        assert DEFAULT_CHAT_MODEL.read() == "chat-default"

    def test_takes_the_longest_name_there_may_be(self):
        self.route(model_name="x" * 200)

        assert DEFAULT_CHAT_MODEL.read() == "x" * 200

    def test_does_nothing_the_second_time(self):
        self.route()

        assert self.route().changed == []
        assert self.route(base_url="http://127.0.0.1:10/v1").changed == ["LLM_ROUTER_CONFIG"]

    def test_leaves_a_model_that_an_operator_gave_another_upstream(self):
        grouped = chat_tree(**{"chat-default": chat_model(upstream(), upstream(weight=2))})
        published(grouped)

        assert self.route().changed == ["DEFAULT_CHAT_MODEL"]
        assert publishing.current_tree() == grouped


class TestOptions:
    def test_are_refused_until_somebody_decides(self):
        for option in (DEFAULT_CHAT_MODEL, DEFAULT_TTS_MODEL, UNSPEECH_UPSTREAM):
            with pytest.raises(ConfigNotSet):
                option.read()
