from __future__ import annotations

import base64
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from airi_server.kernel import sealing
from airi_server.runtime import options as operator_options
from llmrouter.configuration import provider_keys, publishing, rows, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL, DEFAULT_TTS_MODEL, UNSPEECH_UPSTREAM
from llmrouter.routing import explanation, health
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from tests.factories.llmrouter import (
    NOON,
    SECRET,
    chat_model,
    chat_tree,
    older_key,
    published,
    sealed_key,
    secret_of,
    upstream,
)
from tests.llmrouter.test_key_origins import put_in_force

pytestmark = pytest.mark.django_db
CANARY = "sk-canary-5d1f0c"
OTHER_MASTER = base64.b64encode(b"other-master-key-of-32-bytes-len").decode()
VECTOR = "v1.EBESExQVFhcYGRob.zQiK3mcx8uty1rc-zwI.y_ndsViOOar8euG1OqmlSw"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("OPENROUTER_KEY", "AZURE_KEY", "DASHSCOPE_KEY"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


class TestSeedRouterConfig:
    def test_writes_a_slice_for_each_key_there_is(self, monkeypatch):
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        monkeypatch.setenv("DASHSCOPE_KEY", CANARY)

        out, err = run("seed-router-config")

        stored = publishing.current_tree()
        assert set(stored.llm.models) == {"chat-default"}
        assert set(stored.tts.models) == {"alibaba/cosyvoice-v2"}
        assert DEFAULT_CHAT_MODEL.read() == "chat-default"
        with pytest.raises(operator_options.ConfigNotSet):
            DEFAULT_TTS_MODEL.read()
        assert "+ LLM_ROUTER_CONFIG.llm.models.chat-default.upstreams.0.overrideModel" in out
        assert "published: LLM_ROUTER_CONFIG, DEFAULT_CHAT_MODEL" in err

    def test_shows_neither_key_nor_ciphertext(self, monkeypatch):
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        shown = "".join(run("seed-router-config", "--dry-run") + run("seed-router-config"))

        assert "<ciphertext " in shown
        assert CANARY not in shown
        assert "v3." not in shown

    def test_is_quiet_the_second_time(self, monkeypatch):
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        run("seed-router-config")

        out, err = run("seed-router-config")

        assert (out, err) == ("", "nothing published\n")
        assert RouterRevision.objects.count() == 1

    def test_a_dry_run_writes_nothing(self, monkeypatch):
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        out, err = run("seed-router-config", "--dry-run")

        assert out
        assert "nothing published" in err
        assert not RouterRevision.objects.exists()

    def test_reset_removes_the_others_and_sets_the_speech_default(self, monkeypatch):
        published(chat_tree("other"))
        monkeypatch.setenv("AZURE_KEY", CANARY)
        run("seed-router-config", "--reset", "--azure-region", "westus")

        assert publishing.current_tree().llm.models == {}
        assert DEFAULT_TTS_MODEL.read() == "microsoft/v1"

    @pytest.mark.parametrize(
        ("key", "arguments", "reason"),
        [
            ("", [], "Set OPENROUTER_KEY"),
            ("two words", [], "white space"),
            (CANARY, ["--default-chat-model", "a|b"], "must match"),
            ("", ["--file", "/nowhere.json"], "No such file"),
        ],
    )
    def test_exits_with_1_and_a_reason(self, monkeypatch, key, arguments, reason):
        monkeypatch.setenv("OPENROUTER_KEY", key)

        with pytest.raises(CommandError, match=reason) as refused:
            run("seed-router-config", *arguments)
        assert refused.value.returncode == 1
        assert "two words" not in str(refused.value)
        assert CANARY not in str(refused.value)

    def test_publishes_what_was_exported(self, tmp_path):
        config = chat_tree("a", "b")
        published(config)
        text, _ = run("export-router-config", "--with-ciphertexts")
        published(chat_tree("c"))
        file = tmp_path / "tree.json"
        file.write_text(text)

        out, _ = run("seed-router-config", "--file", str(file))
        assert set(publishing.current_tree().llm.models) == {"a", "b", "c"}
        assert "v3." not in out
        run("seed-router-config", "--file", str(file), "--reset")
        assert publishing.current_tree() == config == rows.read()
        assert run("seed-router-config", "--file", str(file))[1] == "nothing published\n"

    def test_merges_the_defaults_that_a_file_names(self, tmp_path):
        defaults = tree.Defaults(full_chain_timeout_ms=5, idle_timeout_ms=7)
        published(chat_tree("a").model_copy(update={"defaults": defaults}))
        file = tmp_path / "tree.json"

        file.write_text('{"defaults": {"fullChainTimeoutMs": 9, "firstByteTimeoutMs": 3}}')
        run("seed-router-config", "--file", str(file))
        stored = publishing.current_tree()
        assert set(stored.llm.models) == {"a"}
        assert (stored.defaults.full_chain_timeout_ms, stored.defaults.idle_timeout_ms) == (9, 7)
        assert stored.defaults.first_byte_timeout_ms == 3

        file.write_text("{}")
        assert run("seed-router-config", "--file", str(file))[1] == "nothing published\n"

    def test_leaves_what_an_operator_gave_more_upstreams_unless_it_resets(self, monkeypatch):
        grouped = chat_model(upstream(), upstream())
        published(chat_tree(**{"chat-default": grouped}))
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        monkeypatch.setenv("AZURE_KEY", CANARY)

        _, err = run("seed-router-config")
        assert "left as it is: chat-default: It has 2 upstreams.\n" in err
        assert publishing.current_tree().llm.models["chat-default"] == grouped
        assert "microsoft/v1" in publishing.current_tree().tts.models
        run("seed-router-config", "--reset")
        assert len(publishing.current_tree().llm.models["chat-default"].upstreams) == 1

    def test_refuses_a_redacted_export(self, tmp_path):
        published(chat_tree("a"))
        file = tmp_path / "tree.json"
        file.write_text(run("export-router-config")[0])

        with pytest.raises(CommandError) as refused:
            run("seed-router-config", "--file", str(file))
        assert str(refused.value) == (
            f"{file}: it was exported without its keys. Export it with: "
            "export-router-config --with-ciphertexts"
        )

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"{", "the configuration: Invalid JSON"),
            (b"\xff", "the configuration: Invalid JSON"),
            (b"[]", "the configuration: must be an object"),
            (b'{"llm": {"models": {"a": {}}}}', "llm.models.a.upstreams: is required"),
        ],
    )
    def test_names_the_file_that_it_cannot_read(self, tmp_path, content, reason):
        file = tmp_path / "tree.json"
        file.write_bytes(content)

        with pytest.raises(CommandError) as refused:
            run("seed-router-config", "--file", str(file))
        assert str(refused.value).startswith(f"{file}: {reason}")
        with pytest.raises(CommandError, match=f"^{tmp_path}: Is a directory$"):
            run("seed-router-config", "--file", str(tmp_path))

    def test_names_the_file_whose_keys_do_not_open(self, tmp_path, settings):
        published(chat_tree("a"))
        file = tmp_path / "tree.json"
        file.write_text(run("export-router-config", "--with-ciphertexts")[0])
        published(chat_tree("b"))
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER

        with pytest.raises(CommandError, match=f"^{file}: "):
            run("seed-router-config", "--file", str(file))

    def test_takes_a_note_of_any_length(self, monkeypatch):
        monkeypatch.setenv("OPENROUTER_KEY", CANARY)
        run("seed-router-config", "--note", "long " * 1000)

        assert RouterRevision.objects.get().note.startswith("long long")


class TestExportRouterConfig:
    def test_shows_no_ciphertext_unless_asked(self):
        published(chat_tree("a"))
        shown, err = run("export-router-config")

        assert "<ciphertext: " in shown
        assert "v3." not in shown
        assert "revision 1" in err
        assert "v3." in run("export-router-config", "--with-ciphertexts")[0]

    def test_exits_with_1_when_there_is_nothing(self):
        with pytest.raises(CommandError, match="Nothing has been published"):
            run("export-router-config")


class TestExplainRoute:
    @pytest.fixture
    def resting(self, monkeypatch):
        told: dict[str, tuple[BreakerState, ...]] = {}
        monkeypatch.setattr(health, "read_standings", lambda _revision: told)
        return told

    def test_prints_the_order_and_why(self, resting):
        keys = [sealed_key(), sealed_key(key_id="k2")]
        published(
            chat_tree(
                **{
                    "chat-default": chat_model(
                        upstream(id="x", keys=keys, override_model="gpt"),
                        upstream(id="y", priority=2, weight=3),
                        upstream(id="z", priority=2),
                    )
                }
            )
        )
        key = publishing.current_table().llm["chat-default"].upstreams[0].keys[0]
        dead = BreakerState(Blame.DEAD, 0, 9.0, 60.0, "401")
        resting[key.health_id] = (dead,)

        out, _ = run("explain-route", "chat-default")

        assert out.splitlines() == [
            "#\tupstream\tmodel\tkey\twhy",
            "1\tx\tgpt\tk2\tpriority 1",
            "2\ty\tchat-default\tk1\tpriority 2, drawn by weight 3 of 4",
            "3\tz\tchat-default\tk1\tpriority 2, drawn by weight 1 of 4",
            f"4\tx\tgpt\tk1\tpriority 1; {explanation.sentence(dead)}",
        ]
        assert SECRET not in out

    def test_exits_with_1_when_nothing_is_left(self, resting):
        published(chat_tree(a=chat_model(upstream(keys=[sealed_key(model="a", disabled=True)]))))

        with pytest.raises(CommandError, match="Nothing is left"):
            run("explain-route", "a")

    def test_names_the_models_there_are(self, resting):
        published(chat_tree("a"))

        with pytest.raises(CommandError, match=r"^There is no model 'b'. There are: a\.$"):
            run("explain-route", "b")

    def test_says_when_nothing_is_configured(self, resting):
        with pytest.raises(CommandError, match="No routes have been published yet: use seed"):
            run("explain-route", "a")

    def test_explains_what_auto_means(self, resting):
        published(chat_tree("a"))
        with pytest.raises(CommandError, match="auto means no model yet: DEFAULT_CHAT_MODEL is"):
            run("explain-route", "auto")

        operator_options.put(DEFAULT_CHAT_MODEL.name, "a", by="x", at=NOON)
        out, err = run("explain-route", "auto")
        assert out == run("explain-route", "a")[0]
        assert err == "auto is a\n"

        published(chat_tree("b"))
        with pytest.raises(CommandError) as refused:
            run("explain-route", "auto")
        assert str(refused.value) == (
            "auto is 'a' (DEFAULT_CHAT_MODEL): There is no model 'a'. There are: b."
        )


class TestRotateMasterKey:
    @pytest.fixture
    def old(self, settings) -> str:
        """Publish two keys under the old master key, then move it to its second place."""
        contract = tree.ConfiguredKey(id="openrouter-prod-1", ciphertext=VECTOR)
        published(
            chat_tree(**{"chat-default": chat_model(upstream(keys=[contract, sealed_key()]))})
        )
        self._store_streaming_key()
        old = sealing.master_keys().current.id
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = settings.LLM_ROUTER_MASTER_KEY
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER
        return old

    @staticmethod
    def _store_streaming_key():
        key = older_key(model=tree.STREAMING_TTS, key_id="v")
        streaming = {"baseURL": "ws://u/s", "keys": [tree.dump(key)]}
        operator_options.put(
            UNSPEECH_UPSTREAM.name,
            {"restBaseURL": "http://u", "streaming": streaming},
            by="x",
            at=NOON,
        )

    def test_seals_everything_again_and_counts(self, old, settings):
        out, err = run("rotate-master-key")

        current = sealing.master_keys().current.id
        assert out == f"{current}\t3\tcurrent\n"
        assert "sealed again: 3" in err
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""
        for _, model, key, origin in provider_keys.places(publishing.current_tree()):
            place = {"model": model, "key_id": key.id, "origin": origin}
            assert provider_keys.is_sealed(SECRET, key.ciphertext, **place)
        assert rows.read() == publishing.current_tree()
        key = UNSPEECH_UPSTREAM.read().streaming.keys[0]
        assert secret_of(key, model=tree.STREAMING_TTS) == SECRET

    def test_does_nothing_the_second_time(self, old):
        run("rotate-master-key")

        assert "sealed again: 0" in run("rotate-master-key")[1]
        assert RouterRevision.objects.count() == 2

    def test_a_dry_run_counts_by_id(self, old):
        out, err = run("rotate-master-key", "--dry-run")

        assert sorted(out.splitlines()) == sorted([f"{old}\t2\told", "v1\t1\told"])
        assert err.startswith("would be sealed again: 3\n")
        assert RouterRevision.objects.count() == 1

    def test_a_dry_run_exits_with_1_where_nothing_opens(self, old, settings):
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""

        with pytest.raises(CommandError, match=r"do not open with .+ chat-default\|k1") as dry:
            run("rotate-master-key", "--dry-run")
        with pytest.raises(CommandError) as real:
            run("rotate-master-key")
        assert dry.value.returncode == 1
        assert str(dry.value) == str(real.value)

    def test_binds_what_an_older_version_sealed_to_where_it_stands(self, settings):
        """Also without another master key: an upgrade is completed by it."""
        published(
            chat_tree(
                **{
                    "chat-default": chat_model(
                        upstream(keys=[older_key(), sealed_key(key_id="k2")])
                    )
                }
            )
        )
        bound = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys[1]
        self._store_streaming_key()
        current = sealing.master_keys().current.id

        out, err = run("rotate-master-key", "--dry-run")
        assert out == f"{current}\t3\tcurrent\n"
        assert "provider keys that name no origin: 2" in err

        _, err = run("rotate-master-key")
        assert err == "sealed again: 2\n"
        keys = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys
        assert [sealing.origin_of(key.ciphertext) for key in keys] == [
            "https://upstream.example:443"
        ] * 2
        assert [secret_of(key) for key in keys] == [SECRET] * 2
        assert keys[1] == bound
        [key] = UNSPEECH_UPSTREAM.read().streaming.keys
        assert sealing.origin_of(key.ciphertext) == "ws://u:80"
        assert run("rotate-master-key")[1] == "sealed again: 0\n"

    def test_leaves_a_key_that_stands_where_it_was_not_entered_for(self):
        elsewhere = sealed_key(base_url="https://elsewhere.example/v1")
        put_in_force(
            chat_tree(
                **{"chat-default": chat_model(upstream(keys=[elsewhere, older_key(key_id="k2")]))}
            )
        )

        with pytest.raises(CommandError, match=r"do not open .+: chat-default\|k1"):
            run("rotate-master-key")

    def test_reports_what_does_not_open_and_goes_on(self, old, settings):
        run("rotate-master-key")
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""
        settings.LLM_ROUTER_MASTER_KEY = base64.b64encode(
            b"third-master-key-of-32-bytes-len"
        ).decode()
        published(chat_tree("a", **publishing.current_tree().llm.models))

        with pytest.raises(CommandError, match=r"chat-default\|openrouter-prod-1"):
            run("rotate-master-key")
        assert json.loads(run("export-router-config")[0])["llm"]["models"].keys() >= {"a"}

    def test_leaves_older_revisions_as_they_were(self, old):
        before = RouterRevision.objects.get(number=1).tree
        run("rotate-master-key")

        assert RouterRevision.objects.get(number=1).tree == before
