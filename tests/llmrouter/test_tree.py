from __future__ import annotations

import pytest

from llmrouter.configuration import changes, tree

KEY = {"id": "openrouter-prod-1", "ciphertext": "v1.a.b.c"}


def upstream(**fields):
    return {"baseURL": "https://openrouter.ai/api/v1", "keys": [KEY], **fields}


def config(*, model=None, **fields):
    model = {"upstreams": [upstream(**fields)], **(model or {})}
    return {"llm": {"models": {"chat-default": model}}}


def fault(value) -> str:
    with pytest.raises(tree.InvalidTree) as refused:
        tree.parse(value)
    assert "v1.a.b.c" not in refused.value.message
    [found] = refused.value.details
    return str(found["path"]).replace("llm.models.chat-default.", "")


class TestParse:
    def test_reads_the_contracts_example_and_its_defaults(self):
        speech = {
            "provider": "azure",
            "upstreams": [
                {
                    "baseURL": "https://eastasia.tts.speech.microsoft.com/cognitiveservices/v1",
                    "keys": [KEY],
                    "adapterParams": {"region": "eastasia"},
                }
            ],
            "fallbackTriggers": {},
        }
        read = tree.parse({**config(), "tts": {"models": {"microsoft/v1": speech}}})

        model = read.llm.models["chat-default"]
        assert model.upstreams[0].header_template == "Bearer {KEY}"
        assert model.fallback_triggers.on_timeout
        assert (model.max_output_tokens, model.default_output_tokens) == (16384, 4096)
        assert read.defaults.per_attempt_timeout_ms == 30_000
        assert read.defaults.full_chain_timeout_ms == 60_000
        assert read.defaults.fallback_http_codes == (401, 402, 403, 429, 500, 502, 503, 504)
        assert read.tts.models["microsoft/v1"].upstreams[0].adapter_params == {"region": "eastasia"}

    def test_reads_back_what_it_dumped(self):
        read = tree.parse(config(priority=2, timeoutMs=5, id="first"))

        assert tree.parse(tree.dump(read)) == read

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://host/v1",
            "openrouter.ai/api",
            "https://",
            "https:///v1",
            "https://user:secret@host/v1",
            "https://user@host/v1",
            "https://@host/v1",
            "https://host/v1?key=1",
            "https://host/v1#x",
            "https://host:port/v1",
            "https://host:99999/v1",
            "https://host /v1",
            "https://host/v1\n",
            "https://hóst/v1",
            "javascript:alert(1)",
            "",
        ],
    )
    def test_refuses_a_base_url_that_is_not_a_plain_one(self, url):
        assert fault(config(baseURL=url)) == "upstreams.0.baseURL"

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:8080/v1/", "https://[::1]:1/v1", "https://h"]
    )
    def test_accepts_a_plain_base_url(self, url):
        assert (
            tree.parse(config(baseURL=url)).llm.models["chat-default"].upstreams[0].base_url == url
        )

    @pytest.mark.parametrize(
        "template", ["Bearer", "{KEY}{KEY}", "", "Bearer {KEY}\r\nX: y", "Bearer {KEY}é", "{key}"]
    )
    def test_refuses_a_header_that_is_not_a_template(self, template):
        assert fault(config(headerTemplate=template)) == "upstreams.0.headerTemplate"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("timeoutMs", 0),
            ("timeoutMs", True),
            ("timeoutMs", "20"),
            ("timeoutMs", 600_001),
            ("weight", 0),
            ("priority", -1),
            ("keys", []),
            ("overrideModel", ""),
            ("id", "a|b"),
            ("unknown", 1),
            ("base_url", "https://host"),
            ("adapterParams", {}),
        ],
    )
    def test_refuses_a_value_out_of_range_or_unknown(self, field, value):
        assert fault(config(**{field: value})) == f"upstreams.0.{field}"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("upstreams", []),
            ("maxOutputTokens", 0),
            ("maxTokensField", "tokens"),
            ("tokenizer", "p50k_base"),
            ("fallbackTriggers", {"httpCodes": [99]}),
        ],
    )
    def test_refuses_a_model_that_cannot_be_used(self, field, value):
        assert fault(config(model={field: value})).startswith(field)

    @pytest.mark.parametrize("name", ["", "a|b", "x" * 201, "a\nb", "a\0b"])
    def test_refuses_a_name_that_cannot_travel(self, name):
        assert fault({"llm": {"models": {name: {"upstreams": [upstream()]}}}})

    def test_refuses_ids_that_stand_twice(self):
        assert fault(config(keys=[KEY, KEY])) == "upstreams.0"
        twice = {"upstreams": [upstream(id="a"), upstream(id="a")]}
        assert fault({"llm": {"models": {"chat-default": twice}}}) == "llm.models.chat-default"

    @pytest.mark.parametrize(
        "params", [{"a": "\0"}, {"a\0": 1}, {"a": 1e300}, {"a": {"b": {"c": {"d": {}}}}}]
    )
    def test_refuses_parameters_that_would_not_come_back(self, params):
        speech = {"provider": "azure", "upstreams": [upstream(adapterParams=params)]}
        path = fault({"tts": {"models": {"m": speech}}})

        assert path == "tts.models.m.upstreams.0.adapterParams"

    @pytest.mark.parametrize("value", [[], None, "x", 7, {"a": object()}, {"a": "\ud800"}])
    def test_refuses_what_is_not_a_tree(self, value):
        with pytest.raises(tree.InvalidTree):
            tree.parse(value)

    def test_never_quotes_what_it_refuses(self):
        with pytest.raises(tree.InvalidTree) as refused:
            tree.parse(config(keys=[{"id": "k", "ciphertext": "sk secret", "plain": "sk-secret"}]))

        assert "secret" not in f"{refused.value} {refused.value.details}"
        assert refused.value.__suppress_context__


class TestRedacted:
    def test_replaces_ciphertexts_wherever_they_are(self):
        shown = tree.redacted({"a": [{"ciphertext": "12345", "id": "x"}], "ciphertext": {"b": 1}})

        assert shown == {
            "a": [{"ciphertext": "<ciphertext: 5 chars>", "id": "x"}],
            "ciphertext": {"b": 1},
        }

    def test_hides_ciphertexts_in_reprs(self):
        assert "v1.a.b.c" not in repr(tree.parse(config()))


class TestDiff:
    def test_shows_paths_and_values_and_that_a_key_changed(self):
        before = tree.dump(tree.parse(config(weight=1)))
        after = tree.dump(tree.parse(config(weight=2, keys=[{**KEY, "ciphertext": "v1.d.e.f"}])))

        lines = changes.diff(before, after).splitlines()

        assert "- llm.models.chat-default.upstreams.0.weight: 1" in lines
        assert "+ llm.models.chat-default.upstreams.0.weight: 2" in lines
        assert len(lines) == 4
        assert not any("v1." in line for line in lines)

    def test_is_empty_when_nothing_changed(self):
        assert changes.diff(config(), config()) == ""
