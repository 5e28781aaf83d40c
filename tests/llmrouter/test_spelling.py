"""How names, addresses and keys may be spelled where somebody writes them.

A fault is named at its place; what is stored from before stays readable, and may stay.
"""

from __future__ import annotations

import unicodedata
from io import StringIO

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from airi_server.kernel.errors import InvalidRequest
from airi_server.runtime import options as operator_options
from llmrouter.configuration import (
    characters,
    provider_keys,
    publishing,
    readback,
    rows,
    spelling,
    tree,
)
from llmrouter.configuration.models import RouterModel, RouterRevision
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from llmrouter.configuration.seeding import requests
from llmrouter.configuration.seeding import seed as seeding
from tests.factories.llmrouter import (
    BASE_URL,
    NOON,
    chat_model,
    chat_tree,
    published,
    sealed_key,
    upstream,
)
from tests.factories.slices import CANARY, chat, stepfun, unspeech
from tests.llmrouter.admin_pages import ADD, NEW, change_page, client_of, errors_of, page, save
from tests.llmrouter.publisher import EMAIL, Publisher
from tests.llmrouter.test_key_origins import put_in_force

INVISIBLE = {
    "\u200b": "U+200B ZERO WIDTH SPACE",
    "\ufeff": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "\u200e": "U+200E LEFT-TO-RIGHT MARK",
    "\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "\u00a0": "U+00A0 NO-BREAK SPACE",
    "\u00ad": "U+00AD SOFT HYPHEN",
    "\u2060": "U+2060 WORD JOINER",
    "\u3000": "U+3000 IDEOGRAPHIC SPACE",
    "\u3164": "U+3164 HANGUL FILLER",
    "\u2028": "U+2028 LINE SEPARATOR",
    "\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
}
RESERVED = ["auto", "AUTO", "Auto", "\uff41uto"]
DECOMPOSED = unicodedata.normalize("NFD", "modèle")
ENDPOINTS = {
    "https://h.example/v1/chat/completions": "https://h.example/v1",
    "https://h.example/v1/chat/completions/": "https://h.example/v1",
    "https://h.example/v1/Chat/Completions": "https://h.example/v1",
    "https://h.example:8443/api/v1/completions": "https://h.example:8443/api/v1",
    "https://h.example/v1/embeddings": "https://h.example/v1",
    "https://h.example/v1/responses": "https://h.example/v1",
    "https://h.example/v1/messages": "https://h.example/v1",
    "https://h.example/v1/audio/speech": "https://h.example/v1",
    "https://h.example/chat/completions": "https://h.example",
}


class TestCharacters:
    @pytest.mark.parametrize(("character", "name"), INVISIBLE.items())
    def test_that_nobody_sees_are_named_with_their_place(self, character, name):
        assert characters.invisible_in(f"gpt{character}4") == f"{name} at character 4"

    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
    def test_of_ascii_are_all_visible(self, text):
        assert characters.invisible_in(text) is None

    @pytest.mark.parametrize(
        "text", ["modèle", "модель", "模型", "gpt-4o mini", "ñ", "🙂", "한국어"]
    )
    def test_that_people_write_are_visible(self, text):
        assert characters.invisible_in(text) is None

    @given(st.characters(categories=["Cc", "Cf", "Zl", "Zp"]))
    def test_that_steer_a_line_are_not(self, character):
        assert characters.invisible_in(character)

    def test_without_a_name_have_a_number(self):
        assert characters.name_of("\n") == "U+000A LINE FEED"
        assert characters.name_of("\x01") == "U+0001 a character without a name"


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (f'"{CANARY}"', "stands in quotation marks"),
            (f"'{CANARY}'", "stands in quotation marks"),
            (f"“{CANARY}”", "stands in quotation marks"),
            (f"`{CANARY}`", "stands in quotation marks"),
            (f' "{CANARY}"\n', "stands in quotation marks"),
            (f"Bearer {CANARY}", "without “Bearer”"),
            (f"bearer\t{CANARY}", "without “Bearer”"),
            (f" {CANARY}", "it holds U+0020 SPACE at character 1"),
            (f"{CANARY}\n", f"it holds U+000A LINE FEED at character {len(CANARY) + 1}"),
            (f"{CANARY}\r\n", "U+000D CARRIAGE RETURN"),
            ("sk\u200b-1", "it holds U+200B ZERO WIDTH SPACE at character 3"),
            ("\ufeffsk-1", "it holds U+FEFF ZERO WIDTH NO-BREAK SPACE at character 1"),
            ("sk-1\u2026", "it holds U+2026 HORIZONTAL ELLIPSIS at character 5"),
            ("sk-1\u00a0", "it holds U+00A0 NO-BREAK SPACE at character 5"),
        ],
    )
    def test_say_what_is_wrong_and_never_what_they_are(self, text, said):
        with pytest.raises(provider_keys.UnusableKey) as refusal:
            provider_keys.checked(text)
        assert said in refusal.value.message
        assert CANARY not in refusal.value.message

    def test_do_not_tell_a_letter_that_may_be_a_part_of_them(self):
        with pytest.raises(provider_keys.UnusableKey) as refusal:
            provider_keys.checked("größe")
        assert "ö" not in refusal.value.message
        assert "U+" not in refusal.value.message
        assert "at character 3" in refusal.value.message

    @pytest.mark.parametrize("text", ['a"b', '"', "'x", "sk-1=="])
    def test_may_hold_a_quotation_mark_elsewhere(self, text):
        assert provider_keys.checked(text) == text

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        ("text", "said"), [(f'"{CANARY}"', "quotation marks"), (f"{CANARY}\u200b", "U+200B")]
    )
    def test_are_refused_by_form_api_and_command(self, text, said, client, settings, monkeypatch):
        settings.ADMIN_EMAILS = [EMAIL]
        operator = client_of("publish_router_config")
        shown = save(operator, reverse(ADD), **NEW | {"upstreams-0-key_value": text})
        assert said in errors_of(shown)

        answer = Publisher(client).seed(chat(key=text))
        assert said in answer.json()["message"]
        assert answer.json()["details"][0]["path"] == "slices.0.plaintextKey"

        monkeypatch.setenv("OPENROUTER_KEY", text)
        with pytest.raises(CommandError, match=said.replace("+", r"\+")):
            call_command("seed-router-config", stdout=StringIO(), stderr=StringIO())
        assert not RouterModel.objects.exists()


class TestAddresses:
    @pytest.mark.parametrize(("base_url", "right"), ENDPOINTS.items())
    def test_that_end_in_an_endpoint_are_refused_with_the_right_one(self, base_url, right):
        with pytest.raises(ValueError, match=r"which requests add themselves") as refusal:
            spelling.base_url(base_url)
        assert f"{refusal.value}".endswith(f"enter {right}")

    @pytest.mark.parametrize(
        "base_url",
        [
            "https://h.example/v1",
            "https://h.example",
            "http://127.0.0.1:11434/v1",
            "http://[::1]:8080/v1",
            "http://my_host:1/",
            "https://h.example./v1",
            "https://h.example/completions/v1",
            "https://chat.completions.example/v1",
            "https://eastasia.tts.speech.microsoft.com/cognitiveservices/v1",
            "https://dashscope.aliyuncs.com/api/v1/services/audio/tts/SpeechSynthesizer",
        ],
    )
    def test_of_providers_are_taken(self, base_url):
        assert spelling.base_url(base_url) == base_url

    @pytest.mark.parametrize(
        "base_url",
        ["https://h.example:0/v1", "https://h..example/v1", "https://h%2eexample/v1",
         "https://h;x.example/v1", "https://h\\x/v1", "https://[v1.x]/", "https://-,-/"],
    )  # fmt: skip
    def test_lead_to_a_host(self, base_url):
        with pytest.raises(ValueError, match="must name a host"):
            spelling.base_url(base_url)

    @pytest.mark.parametrize(("character", "name"), INVISIBLE.items())
    def test_say_which_character_nobody_sees(self, character, name):
        config = tree.dump(chat_tree())
        place = config["llm"]["models"]["chat-default"]["upstreams"][0]
        place["baseURL"] = f"https://h{character}.example/v1"

        with pytest.raises(tree.InvalidTree) as refusal:
            tree.parse(config)
        assert f"{name} at character 10" in refusal.value.message

    @pytest.mark.django_db
    @pytest.mark.parametrize("base_url", ["HTTPS://openrouter.ai/v1", "Https://OpenRouter.ai/v1"])
    def test_may_be_written_with_a_scheme_in_capitals(self, base_url):
        seed(chat(baseURL=base_url))
        operator = client_of("publish_router_config")
        named = {"name": "by-form", "upstreams-0-base_url": base_url}
        assert save(operator, reverse(ADD), **NEW | named).status_code == 302

        stored = publishing.current_tree().llm.models
        urls = {model.upstreams[0].base_url for model in stored.values()}
        assert urls == {"https" + base_url[5:]}
        assert seed(chat(baseURL=base_url)).changed == []


def seed(*chosen, **request):
    body = orjson.dumps({"slices": chosen, **request})
    return seeding.seed(requests.parse(body), by="tester", at=NOON)


def seed_faults(*chosen, **request) -> dict[str, str]:
    with pytest.raises(requests.InvalidSeed) as refusal:
        seed(*chosen, **request)
    return {fault["path"]: fault["message"] for fault in refusal.value.details}


def tree_faults(config) -> dict[str, str]:
    with pytest.raises(tree.InvalidTree) as refusal:
        publishing.publish(config, note="", by="tester", at=NOON)
    return {fault["path"]: fault["message"] for fault in refusal.value.details}


@given(st.text("aeiou\u0301\u0327\u0323\u1100\u1161\u11a8\u0958\u212bÅ", max_size=6))
def test_names_are_taken_composed_and_never_otherwise(name):
    if unicodedata.is_normalized("NFC", name):
        assert spelling.name(name) == name
    else:
        with pytest.raises(ValueError, match="NFC"):
            spelling.name(name)


@pytest.mark.django_db
class TestNames:
    @pytest.mark.parametrize("name", RESERVED)
    def test_that_are_reserved_are_refused_wherever_a_model_is_named(self, name):
        assert "reserved" in tree_faults(chat_tree(name))[f"llm.models.{name}"]
        assert "reserved" in seed_faults(chat(name))["slices.0.modelName"]
        assert "reserved" in seed_faults(stepfun(modelName=name))["slices.0.modelName"]
        shown = save(client_of("publish_router_config"), reverse(ADD), **NEW | {"name": name})
        assert "reserved" in errors_of(shown)
        with pytest.raises(requests.InvalidSeed, match="reserved"):
            seeding.route_chat(
                model_name=name, base_url=BASE_URL, override_model="m", plaintext_key=CANARY,
                key_id="k", by="run", at=NOON,
            )  # fmt: skip
        assert not RouterModel.objects.exists()

    def test_that_are_reserved_are_no_default_either(self):
        faults = seed_faults(defaults={"chatModel": "auto", "ttsModel": "AUTO"})
        assert faults.keys() == {"defaults.chatModel", "defaults.ttsModel"}
        with pytest.raises(InvalidRequest, match="reserved"):
            operator_options.put(DEFAULT_CHAT_MODEL.name, "auto", by="x", at=NOON)

    @pytest.mark.parametrize("name", ["automatic", "auto-1", "au to", "gpt-auto", "auto/mini"])
    def test_that_only_look_like_it_are_taken(self, name):
        assert published(chat_tree(name)).number == 1

    @pytest.mark.parametrize(("character", "name"), INVISIBLE.items())
    def test_say_which_character_nobody_sees(self, character, name):
        odd, says = f"gpt{character}4", f"{name} at character 4"
        key = sealed_key(model="m", key_id=odd)
        model = chat_model(upstream(id=odd, keys=[key], override_model=odd))
        faults = tree_faults(chat_tree(odd, m=model))
        assert {path for path, message in faults.items() if says in message} == {
            f"llm.models.{odd}",
            "llm.models.m.upstreams.0.id",
            "llm.models.m.upstreams.0.overrideModel",
            "llm.models.m.upstreams.0.keys.0.id",
        }
        given = {"overrideModel": odd, "keyEntryId": odd}
        socket = unspeech(keyEntryId=odd)
        faults = seed_faults(chat(odd, **given), stepfun(upstreamModel=odd), socket)
        assert {path for path, message in faults.items() if says in message} == {
            "slices.0.modelName",
            "slices.0.overrideModel",
            "slices.0.keyEntryId",
            "slices.1.upstreamModel",
            "slices.2.streaming.keyEntryId",
        }

    def test_say_it_at_the_field_of_a_form(self):
        odd = "gpt\u200b4"
        places = ("name", "upstreams-0-slug", "upstreams-0-override_model", "upstreams-0-key_id")
        operator = client_of("publish_router_config")
        for field in places:
            shown = save(operator, reverse(ADD), **NEW | {field: odd})
            assert "U+200B ZERO WIDTH SPACE at character 4" in errors_of(shown), field
        url = NEW["upstreams-0-base_url"] + "/chat/completions"
        shown = save(operator, reverse(ADD), **NEW | {"upstreams-0-base_url": url})
        assert "enter https://h.example/v1" in errors_of(shown)
        assert not RouterModel.objects.exists()

    def test_say_it_on_the_page_of_the_upstream_too(self):
        published()
        url = page("routerupstream_change", RouterModel.objects.get().upstreams.get().pk)
        new = {"keys-TOTAL_FORMS": "2", "keys-1-key_id": "k\u200b2", "keys-1-value": CANARY}

        shown = save(client_of("publish_router_config"), url, **new)

        assert "U+200B ZERO WIDTH SPACE at character 2" in errors_of(shown)

    def test_are_composed_by_forms_and_refused_elsewhere(self):
        assert (
            "(NFC): character 4 is to be U+00E8"
            in tree_faults(chat_tree(DECOMPOSED))[f"llm.models.{DECOMPOSED}"]
        )
        assert "(NFC)" in seed_faults(chat(DECOMPOSED))["slices.0.modelName"]

        operator = client_of("publish_router_config")
        assert save(operator, reverse(ADD), **NEW | {"name": DECOMPOSED}).status_code == 302
        assert RouterModel.objects.get().name == "modèle"

    @pytest.mark.parametrize("name", [" gpt", "gpt ", "\u2003gpt"])
    def test_do_not_begin_or_end_with_a_blank(self, name):
        assert tree_faults(chat_tree(name)).keys() == {f"llm.models.{name}"}
        assert seed_faults(chat(name)).keys() == {"slices.0.modelName"}

    @pytest.mark.parametrize(("base_url", "right"), list(ENDPOINTS.items())[:3])
    def test_addresses_are_judged_by_all_who_take_them(self, base_url, right):
        model = chat_model(upstream(base_url=base_url))
        [message] = tree_faults(chat_tree(**{"chat-default": model})).values()
        assert message.endswith(right)
        for each in (chat(baseURL=base_url), stepfun(baseURL=base_url)):
            assert seed_faults(each)["slices.0.baseURL"].endswith(right)


@pytest.mark.django_db
class TestStored:
    """What an older version has stored is not judged again, until somebody writes it."""

    ODD = "https://provider.example/v1/chat/completions"

    @pytest.fixture
    def old(self):
        """A configuration with everything in it that can no longer be written."""
        key = sealed_key(model="auto", key_id="k\u200b1", base_url=self.ODD)
        place = upstream(base_url=self.ODD, id="x\u200b", keys=[key], override_model="m\u200b")
        config = chat_tree(auto=chat_model(place))
        put_in_force(config)
        rows.write(config, {})
        return config

    def test_stays_in_force(self, old):
        assert publishing.current_tree() == old
        assert publishing.current_table().available == ("auto",)

    def test_does_not_stand_in_the_way_of_other_changes(self, old):
        published(chat_tree("b", **old.llm.models))
        seed(chat("c"))
        operator = client_of("publish_router_config")
        saved = save(operator, change_page("auto"), max_output_tokens="7")
        assert saved.status_code == 302, errors_of(saved)

        now = publishing.current_tree().llm.models
        assert now.keys() == {"auto", "b", "c"}
        assert now["auto"].max_output_tokens == 7
        assert now["auto"].upstreams == old.llm.models["auto"].upstreams

    def test_may_be_mended_in_a_form(self, old):
        mended = {"upstreams-0-base_url": "https://provider.example/v1", "upstreams-0-slug": "x"}

        saved = save(client_of("publish_router_config"), change_page("auto"), **mended)

        assert saved.status_code == 302, errors_of(saved)
        [place] = publishing.current_tree().llm.models["auto"].upstreams
        assert (place.base_url, place.id) == ("https://provider.example/v1", "x")

    def test_may_be_read_and_merged_over_as_a_slice(self, old):
        assert readback.read().request["slices"][0]["baseURL"] == self.ODD

        seed(chat("auto", key=None, baseURL="https://provider.example/v1"))
        [place] = publishing.current_tree().llm.models["auto"].upstreams
        assert place.base_url == "https://provider.example/v1"

    def test_may_be_published_again(self, old):
        published(chat_tree("b"))

        assert publishing.republish(1, note="back", by="tester", at=NOON)
        assert publishing.current_tree() == old
        assert RouterRevision.objects.count() == 3

    def test_is_not_written_anew_under_another_name(self, old):
        faults = tree_faults(chat_tree(b=chat_model(upstream(base_url=self.ODD, model="b"))))

        assert faults.keys() == {"llm.models.b.upstreams.0.baseURL"}
