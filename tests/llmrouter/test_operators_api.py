"""`/api/admin/config/router` over HTTP: the contract's cases 83 to 91, and keep-or-rotate."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from airi_server.runtime.models import AuditEntry, OptionRevision
from llmrouter.configuration import publishing, rows, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from tests.factories import accounts as make
from tests.factories.llmrouter import (
    chat_model,
    chat_tree,
    published,
    sealed_key,
    upstream,
)
from tests.factories.slices import CANARY, azure, chat, one_of_each, unspeech
from tests.llmrouter.publisher import EMAIL, Publisher

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client, settings):
    settings.ADMIN_EMAILS = [EMAIL]
    return Publisher(client)


def written():
    """Return how much there is of everything that a publication writes."""
    tables = (RouterRevision, OptionRevision, AuditEntry)
    return [table.objects.count() for table in tables] + sorted(versions().items())


def versions() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, version FROM published_version")
        return dict(cursor.fetchall())


BODY = {"get": (), "post": ({"slices": [chat()]},)}


class TestCases:
    def test_case_83_merging_keeps_other_models_and_the_defaults(self, operator):
        before = chat_tree("a", "b").model_copy(
            update={"defaults": tree.Defaults(full_chain_timeout_ms=5)}
        )
        published(before)

        answer = operator.seed(chat("b"))

        stored = publishing.current_tree()
        assert answer.status_code == 200
        assert stored.llm.models["a"] == before.llm.models["a"]
        assert stored.llm.models["b"].upstreams[0].base_url == "https://openrouter.ai/api/v1"
        assert stored.defaults == before.defaults

    def test_case_84_resetting_keeps_only_what_is_given(self, operator):
        published(
            chat_tree("a", "b").model_copy(
                update={"defaults": tree.Defaults(full_chain_timeout_ms=5)}
            )
        )
        operator.seed(chat("c"), mode="reset")

        assert set(publishing.current_tree().llm.models) == {"c"}
        assert publishing.current_tree().defaults == tree.Defaults()

    def test_case_86_a_dry_run_changes_nothing(self, operator):
        published(chat_tree("a"))
        before, rows_before = written(), rows.read()

        answer = operator.seed(*one_of_each(), dryRun=True, defaults={"chatModel": "big"})

        shown = answer.json()
        [up] = shown["preview"]["LLM_ROUTER_CONFIG"]["llm"]["models"]["big"]["upstreams"]
        assert up["keys"][0]["ciphertext"].startswith("<ciphertext: ")
        assert up["keys"][0]["ciphertext"].endswith(" chars>")
        assert shown["invalidatedKeys"] == []
        assert len(shown["applied"]) == len(one_of_each())
        assert (written(), rows.read()) == (before, rows_before)

    def test_case_87_a_real_run_writes_each_key_once(self, operator):
        before = versions()

        answer = operator.seed(chat(), unspeech(), defaults={"chatModel": "chat-default"})

        names = ["LLM_ROUTER_CONFIG", "UNSPEECH_UPSTREAM", "DEFAULT_CHAT_MODEL"]
        assert answer.status_code == 200
        assert answer["Cache-Control"] == "no-store"
        assert answer.json()["invalidatedKeys"] == names
        assert list(answer.json()["preview"]) == names
        assert answer.json()["applied"] == [
            {
                "kind": "openrouter",
                "target": "llm-router",
                "surface": "llm",
                "modelName": "chat-default",
                "keyEntryId": "openrouter-prod-1",
            },
            {"kind": "unspeech", "target": "unspeech", "keyEntryId": "volcengine-prod-1"},
        ]
        assert DEFAULT_CHAT_MODEL.read() == "chat-default"
        told = {name: version - before.get(name, 0) for name, version in versions().items()}
        assert (told["router"], told["options"]) == (1, 2)

    def test_case_87_one_audit_row_each_says_who(self, operator):
        operator.seed(chat(), unspeech(), defaults={"chatModel": "chat-default"})

        entries = AuditEntry.objects.filter(actor=EMAIL).order_by("id")
        assert [entry.subject_id for entry in entries] == [
            "1", "UNSPEECH_UPSTREAM", "DEFAULT_CHAT_MODEL",
        ]  # fmt: skip
        assert {entry.actor_id for entry in entries} == {str(operator.user.pk)}
        assert entries[0].action == "llmrouter.publish_router_config"
        assert RouterRevision.objects.get().note == "merge over the API: chat-default, unspeech"

    def test_case_88_two_unspeech_slices(self, operator):
        answer = operator.seed(unspeech(), unspeech())

        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_BODY")
        assert answer.json()["message"] == "At most one unspeech slice per request"

    @pytest.mark.parametrize(
        ("chosen", "path"),
        [
            ([chat("a|b")], "slices.0.modelName"),
            ([chat(str(n)) for n in range(21)], "slices"),
            ([chat(), azure(keyEntryId="a|b")], "slices.1.keyEntryId"),
            ([chat("a"), chat("a")], "slices"),
            ([{"kind": "aliyun-nls-asr", "modelName": "a"}], "slices.0"),
            ([chat(key="two words")], "slices.0.plaintextKey"),
            ([chat(key="ключ")], "slices.0.plaintextKey"),
            ([chat(key=None)], "slices.0.plaintextKey"),
        ],
    )
    def test_case_90_invalid_bodies_are_told_where(self, operator, chosen, path):
        before = written()
        answer = operator.seed(*chosen)

        assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_BODY")
        assert [fault["path"] for fault in answer.json()["details"]] == [path]
        assert CANARY not in answer.content.decode()
        assert written() == before

    @pytest.mark.parametrize("body", ["", "{", b"\xff\xfe", "a=1", "[" * 100_000])
    def test_case_90_what_is_not_json(self, operator, body):
        answer = operator.post(body)

        assert answer.status_code == 400
        told = answer.json()
        assert told.keys() == {"error", "message"}
        assert told["error"] == "INVALID_BODY"
        assert told["message"].startswith("Request body must be JSON: ")


class TestWhoMayCall:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_nobody_without_a_credential(self, operator, method):
        for token in (None, "sk-airi-nobody"):
            assert getattr(operator, method)(*BODY[method], token=token).status_code == 401

    @pytest.mark.parametrize("method", ["get", "post"])
    @pytest.mark.parametrize(
        ("listed", "verified", "status", "message"),
        [
            ([EMAIL], True, 403, "Admin access required"),
            (["other@example.com"], False, 403, "Admin access requires a verified email"),
            ([], True, 403, "Admin access required"),
            (["other@example.com"], True, 200, None),
        ],
    )
    def test_case_91(self, operator, settings, method, listed, verified, status, message):  # noqa: PLR0917
        other = make.user(email="Other@Example.com", verified=verified)
        settings.ADMIN_EMAILS = listed
        answer = getattr(operator, method)(*BODY[method], token=make.api_key(owner=other)[1])

        assert (answer.status_code, answer.json().get("message")) == (status, message)

    def test_staff_with_the_permission(self, operator, settings):
        settings.ADMIN_EMAILS = []
        staff = make.user(verified=True, is_staff=True)
        _, token = make.api_key(owner=staff)
        assert operator.get(token=token).status_code == 403

        staff.user_permissions.add(Permission.objects.get(codename="publish_router_config"))
        assert operator.get(token=token).status_code == 200

    def test_a_stranger_s_body_is_not_read(self, operator):
        token = make.api_key(owner=make.user(verified=True))[1]

        assert operator.post("{", token=token).status_code == 403


class TestReadBack:
    def test_can_be_posted_again_and_changes_nothing(self, operator):
        operator.seed(*one_of_each(), defaults={"chatModel": "big", "ttsVoices": {"m": {}}})
        before, shown = written(), operator.get().json()

        answer = operator.post(shown["request"])

        assert answer.json()["invalidatedKeys"] == []
        assert len(answer.json()["applied"]) == len(one_of_each())
        assert written() == before

    def test_says_what_is_there(self, operator):
        keys = [sealed_key(model="g", key_id=name) for name in ("k1", "k2")]
        published(chat_tree("a", g=chat_model(upstream(keys=keys))))

        answer = operator.get()

        shown = answer.json()
        assert answer["Cache-Control"] == "no-store"
        assert shown["loadedAt"].endswith("Z")
        assert shown["missingKeys"] == [
            "UNSPEECH_UPSTREAM", "DEFAULT_CHAT_MODEL", "DEFAULT_TTS_MODEL",
        ]  # fmt: skip
        assert shown["request"] == {
            "mode": "merge",
            "slices": [
                {
                    "kind": "openai-compatible",
                    "modelName": "a",
                    "overrideModel": "a",
                    "baseURL": "https://upstream.example/v1",
                    "headerTemplate": "Bearer {KEY}",
                    "keyEntryId": "k1",
                    "existingKeyEntryId": "k1",
                }
            ],
            "defaults": {},
        }
        assert shown["unrepresented"] == [
            {"surface": "llm", "modelName": "g", "why": "It has 2 keys."}
        ]

    def test_a_grouped_model_is_refused_and_a_reset_is_not(self, operator):
        keys = [sealed_key(model="g", key_id=name) for name in ("k1", "k2")]
        published(chat_tree(g=chat_model(upstream(keys=keys))))

        refused = operator.seed(chat("g"))
        assert (refused.status_code, refused.json()["error"]) == (400, "INVALID_BODY")
        assert "It has 2 keys." in refused.json()["message"]
        assert operator.seed(chat("g"), mode="reset").status_code == 200
