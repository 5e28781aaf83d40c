from __future__ import annotations

import json

import pytest

from llmrouter.configuration import tree
from llmrouter.configuration.seeding import providers, requests
from tests.factories.slices import (
    CANARY,
    azure,
    chat,
    dashscope,
    one_of_each,
    stepfun,
    unspeech,
)

KEYS = (tree.ConfiguredKey(id="k", ciphertext="sealed"),)


def parse(*chosen, **request):
    return requests.parse(json.dumps({"slices": chosen, **request}))


def refused(body) -> requests.InvalidSeed:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    with pytest.raises(requests.InvalidSeed) as refused:
        requests.parse(text)
    return refused.value


class TestParse:
    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"slices": [chat("a|b")]}, "slices.0.modelName"),
            ({"slices": [chat(), chat("b", keyEntryId="a|b")]}, "slices.1.keyEntryId"),
            ({"slices": [chat("a", existingKeyEntryId="a|b")]}, "slices.0.existingKeyEntryId"),
            ({"slices": [chat(str(n)) for n in range(21)]}, "slices"),
            ({"slices": []}, "slices"),
            ({"defaults": {"chatModel": "a"}}, "slices"),
            ({"slices": [chat(), chat()]}, "slices"),
            ({"slices": [{**chat(), "kind": "other"}]}, "slices.0"),
            ({"slices": [{"kind": "aliyun-nls-asr", "modelName": "asr"}]}, "slices.0"),
            ({"slices": [{"modelName": "a"}]}, "slices.0"),
            ({"slices": [None]}, "slices.0"),
            ({"slices": [chat(baseURL="ftp://a")]}, "slices.0.baseURL"),
            ({"slices": [chat(baseURL="https://u:p@a")]}, "slices.0.baseURL"),
            ({"slices": [chat(headerTemplate="Bearer")]}, "slices.0.headerTemplate"),
            ({"slices": [chat("x" * 201)]}, "slices.0.modelName"),
            ({"slices": [chat("a\0b")]}, "slices.0.modelName"),
            ({"slices": [azure(region="../x")]}, "slices.0.region"),
            ({"slices": [dashscope(region="us")]}, "slices.0.region"),
            ({"slices": [stepfun(baseURL="")]}, "slices.0.baseURL"),
            ({"slices": [unspeech(upstreamURL="http://a")]}, "slices.0.streaming.upstreamURL"),
            ({"slices": [chat(key="x" * 8193)]}, "slices.0.plaintextKey"),
            ({"slices": [chat(key=7)]}, "slices.0.plaintextKey"),
            ({"slices": [chat(extra=1)]}, "slices.0.extra"),
            ({"slices": [chat()], "mode": "replace"}, "mode"),
            ({"slices": [chat()], "dryRun": "true"}, "dryRun"),
            ({"slices": [chat()], "dryRun": 1}, "dryRun"),
            ({"slices": [], "defaults": {"chatModel": ""}}, "defaults.chatModel"),
            ({"slices": [], "defaults": {"ttsModel": "x" * 201}}, "defaults.ttsModel"),
            ({"slices": [], "defaults": {"ttsVoices": {"m": {"en": "\0"}}}},
             "defaults.ttsVoices.m.en"),
            ([], ""),
        ],
    )  # fmt: skip
    def test_names_the_path_of_a_fault_as_the_body_spells_it(self, body, path):
        refusal = refused(body)

        assert (refusal.status, refusal.code) == (400, "INVALID_BODY")
        assert [fault["path"] for fault in refusal.details] == [path]
        assert CANARY not in f"{refusal.message} {refusal.details}"

    def test_names_every_fault(self):
        refusal = refused({"slices": [chat("a|b"), azure(region="X")], "mode": "x"})

        paths = [fault["path"] for fault in refusal.details]
        assert paths == ["mode", "slices.0.modelName", "slices.1.region"]

    def test_refuses_two_unspeech_slices(self):
        refusal = refused({"slices": [unspeech(), unspeech()]})

        assert refusal.message == "At most one unspeech slice per request"

    def test_says_which_model_was_named_twice(self):
        assert "the llm model a" in refused({"slices": [chat("a"), chat("a")]}).message

    def test_takes_one_name_on_both_surfaces(self):
        assert len(parse(chat("a"), azure(modelName="a")).slices) == 2

    def test_says_that_it_recognizes_no_speech(self):
        assert "not supported" in refused({"slices": [{"kind": "aliyun-nls-asr"}]}).message

    @pytest.mark.parametrize(
        "body", ["{", "", b"\xff", '{"slices":[]', "[" * 5000, r'{"mode":"\ud800"}']
    )
    def test_refuses_what_is_not_json(self, body):
        refusal = refused(body)

        assert refusal.message.startswith("Request body must be JSON")
        assert refusal.details is None

    def test_takes_defaults_without_slices(self):
        seed = parse(defaults={"ttsVoices": {"m": {"en-US": "jenny"}}})

        assert seed.defaults.tts_voices == {"m": {"en-US": "jenny"}}

    @pytest.mark.parametrize("key", [None, "", " ", "\t\n"])
    def test_reads_a_blank_key_as_none(self, key):
        [each] = parse({**chat(key=None), "plaintextKey": key}).slices

        assert each.plaintext_key is None

    def test_takes_the_longest_key(self):
        [each] = parse(chat(key="x" * 8192)).slices

        assert each.plaintext_key.get_secret_value() == "x" * 8192

    def test_hides_keys_in_reprs(self):
        assert CANARY not in repr(parse(*one_of_each()))


class TestKinds:
    @pytest.mark.parametrize(
        ("given", "url", "key_id"),
        [
            (chat(), "https://openrouter.ai/api/v1", "openrouter-prod-1"),
            (chat(kind="bedrock"), "https://bedrock-mantle.us-east-1.api.aws/v1", "bedrock-prod-1"),
            (
                chat(kind="openai-compatible"),
                "https://api.openai.com/v1",
                "openai-compatible-prod-1",
            ),
            (
                azure(region="westus"),
                "https://westus.tts.speech.microsoft.com/cognitiveservices/v1",
                "azure-tts-prod-1",
            ),
            (
                dashscope(region="cn"),
                "https://dashscope.aliyuncs.com/api/v1/services/audio/tts/SpeechSynthesizer",
                "dashscope-tts-prod-1",
            ),
            (stepfun(), "https://api.stepfun.com/v1", "stepfun-tts-prod-1"),
        ],
    )
    def test_have_the_contract_s_defaults(self, given, url, key_id):
        [each] = parse(given).slices

        assert (each.upstream()["base_url"], each.key_entry_id) == (url, key_id)
        assert each.wanted_key_id is None

    def test_know_whether_a_key_id_was_named(self):
        [each] = parse(chat(keyEntryId="openrouter-prod-1")).slices

        assert each.wanted_key_id == "openrouter-prod-1"

    @pytest.mark.parametrize(
        "kind", [providers.OpenRouter, providers.Bedrock, providers.OpenAICompatible]
    )
    def test_name_the_provider_by_its_host(self, kind):
        [each] = parse({**chat(), "kind": kind.model_fields["kind"].default}).slices
        upstream = tree.LLMUpstream(**each.upstream(), keys=KEYS)

        assert providers.chat_kind(upstream) is kind
