"""What is read back can be posted again and changes nothing, whatever is in force."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airi_server.runtime.models import OptionRevision
from llmrouter.configuration import publishing, readback, tree
from llmrouter.configuration.options import UNSPEECH_UPSTREAM
from llmrouter.configuration.seeding import requests
from llmrouter.configuration.seeding import seed as seeding
from tests.factories.llmrouter import (
    NOON,
    chat_model,
    chat_tree,
    published,
    sealed_key,
    upstream,
)
from tests.factories.router_trees import parameters, short_names, trees, triggers
from tests.factories.slices import (
    CANARY,
    azure,
    chat,
    dashscope,
    one_of_each,
    stepfun,
    unspeech,
)

pytestmark = pytest.mark.django_db
MANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HOSTS = st.sampled_from(
    [
        "https://openrouter.ai/api/v1",
        "https://bedrock-mantle.eu-west-1.api.aws/v1",
        "https://api.openai.com/v1",
        "http://10.0.0.7:8000",
    ]
)


def seed(*chosen, **request) -> seeding.Seeded:
    body = orjson.dumps({"slices": chosen, **request})
    return seeding.seed(requests.parse(body), by="tester", at=NOON)


def post_back() -> list[str]:
    """Post what was read, and return what that changed."""
    request = json.dumps(readback.read().request)
    return seeding.seed(requests.parse(request), by="tester", at=NOON).changed


def kinds_of(read):
    return {each.get("modelName"): each["kind"] for each in read.request["slices"]}


@st.composite
def any_slices(draw):
    """Return slices of every kind, with what a slice may choose chosen at random."""
    key = {"keyEntryId": draw(short_names)}
    shared = {"baseURL": draw(HOSTS), "headerTemplate": draw(st.sampled_from(["{KEY}", "a {KEY}"]))}
    region = st.sampled_from(["intl", "cn"])
    named = {"upstreamModel": draw(short_names)} if draw(st.booleans()) else {}
    return [
        chat(draw(short_names), overrideModel=draw(short_names), **shared, **key),
        azure(region=draw(st.sampled_from(["eastasia", "westus2"])), **key),
        dashscope(region=draw(region), upstreamModel=draw(short_names), **key),
        stepfun(baseURL=draw(HOSTS), **named, **key),
        unspeech(streaming=draw(st.booleans()), **key),
    ]


@st.composite
def tuned(draw, config):
    """Return a tree with what no slice can name chosen at random."""
    value = tree.dump(config)
    for surface in (tree.LLM, tree.TTS):
        for model in value[surface]["models"].values():
            model["fallbackTriggers"] = tree.dump(draw(triggers))
            [up] = model["upstreams"]
            up.update(weight=draw(st.integers(1, 9)), priority=draw(st.integers(0, 9)))
            up["keys"][0]["disabled"] = draw(st.booleans())
            if surface == tree.TTS:
                up["adapterParams"] = {**draw(parameters), **up["adapterParams"]}
            else:
                up["timeoutMs"] = draw(st.integers(1, 600_000))
                model["maxOutputTokens"] = draw(st.integers(1, 10**7))
    return tree.parse(value)


class TestRoundTrip:
    @given(config=trees())
    @MANY
    def test_of_any_tree_changes_nothing(self, config):
        publishing.publish(config, note="", by="tester", at=NOON)

        assert post_back() == []
        assert publishing.current_tree() == config

    @given(data=st.data())
    @MANY
    def test_of_every_kind_however_tuned_leaves_nothing_out(self, data):
        seed(*data.draw(any_slices()), mode="reset")
        config = data.draw(tuned(publishing.current_tree()))
        publishing.publish(config, note="", by="tester", at=NOON)

        assert readback.read().unrepresented == []
        assert len(readback.read().request["slices"]) == 5
        assert post_back() == []
        assert publishing.current_tree() == config

    @given(config=trees())
    @MANY
    def test_names_each_model_once(self, config):
        publishing.publish(config, note="", by="tester", at=NOON)

        read = readback.read()
        said = [each["modelName"] for each in read.request["slices"]]
        left_out = [each["modelName"] for each in read.unrepresented]
        assert sorted(said + left_out) == sorted([*config.llm.models, *config.tts.models])

    def test_of_nothing_changes_nothing(self):
        assert readback.read().request == {"mode": "merge", "slices": [], "defaults": {}}
        assert post_back() == []

    def test_of_defaults_changes_nothing(self):
        defaults = {"chatModel": "a", "ttsModel": "b", "ttsVoices": {"b": {"en": "jenny"}}}
        seed(chat(), defaults=defaults)

        assert readback.read().request["defaults"] == defaults
        assert post_back() == []

    def test_of_an_upstream_that_is_sent_the_model_s_own_name_changes_nothing(self):
        published(chat_tree(a=chat_model(upstream(model="a"))))

        assert readback.read().request["slices"][0]["overrideModel"] == "a"
        assert post_back() == []


class TestRead:
    def test_names_the_kind_and_the_key_of_each(self):
        seed(*one_of_each())
        read = readback.read()

        assert kinds_of(read) == {
            "chat-default": "openrouter",
            "big": "openai-compatible",
            "claude": "bedrock",
            "microsoft/v1": "azure",
            "alibaba/cosyvoice-v2": "dashscope-cosyvoice",
            "stepfun/v1": "stepfun",
            None: "unspeech",
        }
        [first] = [s for s in read.request["slices"] if s.get("modelName") == "chat-default"]
        assert first["existingKeyEntryId"] == "openrouter-prod-1"
        assert read.request["slices"][-1]["streaming"]["existingKeyEntryId"] == "volcengine-prod-1"

    def test_shows_neither_key_nor_ciphertext(self):
        seed(*one_of_each())
        shown = repr(readback.read())

        assert "<ciphertext: " in shown
        assert CANARY not in shown
        assert "v3." not in shown
        assert "plaintextKey" not in shown

    def test_leaves_out_what_would_lose_a_part_and_says_why(self):
        keys = [sealed_key(model="k", key_id=name) for name in ("k1", "k2")]
        published(
            chat_tree(k=chat_model(upstream(keys=keys)), u=chat_model(*[upstream(model="u")] * 2))
        )

        read = readback.read()
        assert read.request["slices"] == []
        assert read.unrepresented == [
            {"surface": "llm", "modelName": "k", "why": "It has 2 keys."},
            {"surface": "llm", "modelName": "u", "why": "It has 2 upstreams."},
        ]
        assert set(read.preview["LLM_ROUTER_CONFIG"]["llm"]["models"]) == {"k", "u"}

    def test_leaves_out_a_provider_without_a_kind(self):
        seed(azure())
        config = tree.dump(publishing.current_tree())
        config["tts"]["models"]["microsoft/v1"]["provider"] = "volcengine"
        published(tree.parse(config))

        [left_out] = readback.read().unrepresented
        assert left_out["why"] == "No kind of slice writes a volcengine model like this one."

    def test_leaves_out_a_socket_with_several_keys(self):
        seed(unspeech())
        value = tree.dump(UNSPEECH_UPSTREAM.read())
        value["streaming"]["keys"].append({"id": "k2", "ciphertext": "v2.x"})
        OptionRevision.objects.update(value=value)

        read = readback.read()
        assert read.request["slices"] == []
        assert read.unrepresented == [
            {"surface": "unspeech", "modelName": "streaming-tts", "why": "It has 2 keys."}
        ]
        assert post_back() == []

    def test_names_what_is_missing(self):
        missing = ["UNSPEECH_UPSTREAM", "DEFAULT_CHAT_MODEL", "DEFAULT_TTS_MODEL"]
        assert readback.read().missing == ["LLM_ROUTER_CONFIG", *missing]

        seed(chat(), defaults={"chatModel": "a"})
        assert readback.read().missing == ["UNSPEECH_UPSTREAM", "DEFAULT_TTS_MODEL"]
