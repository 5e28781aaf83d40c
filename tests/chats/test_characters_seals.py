"""Nobody but the owner of a character reads the keys in its capabilities."""

import json
import logging

import pytest
from django.db import connection

from airi_server.api import api
from airi_server.kernel import sealing
from chats.characters import characters, encryption, portraits
from chats.characters.models import Capability
from tests.chats.test_characters_api import Caller
from tests.factories import characters as make

IDS = {"character_id": "c1", "capability_id": "p1"}
OTHER_MASTER = "/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v4="
SECRETS = (make.KEY, "hidden.example.com", "secret-model", "<speak/>")
BLANK = {"apiKey": "", "apiBaseUrl": ""}


def leaks(text):
    return [secret for secret in SECRETS if secret in text or secret.encode().hex() in text]


def tables():
    with connection.cursor() as cursor:
        lines = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            lines += [line for (line,) in cursor.fetchall()]
    return "\n".join(lines)


class TestSeal:
    def test_opens_for_the_same_capability_only(self):
        sealed = encryption.seal("klüch", **IDS)

        assert encryption.open_sealed(sealed, **IDS) == "klüch"
        assert encryption.seal("klüch", **IDS) != sealed
        for other in ({"character_id": "c2"}, {"capability_id": "p2"}):
            with pytest.raises(sealing.CannotOpen):
                encryption.open_sealed(sealed, **{**IDS, **other})
        with pytest.raises(sealing.CannotOpen):
            encryption.open_sealed(sealed, character_id="c1p", capability_id="1")

    def test_leaves_nothing_in_the_buffer_it_was_opened_in(self, monkeypatch):
        lent, opened = [], sealing.open_sealed

        def open_sealed(sealed, **words):
            lent.append(opened(sealed, **words))
            return lent[-1]

        monkeypatch.setattr(sealing, "open_sealed", open_sealed)

        assert encryption.open_sealed(encryption.seal("key", **IDS), **IDS) == "key"
        assert lent == [bytearray(3)]

    def test_refuses_a_change_of_any_character(self):
        sealed = encryption.seal("key", **IDS)
        for n, letter in enumerate(sealed):
            changed = sealed[:n] + ("A" if letter != "A" else "B") + sealed[n + 1 :]
            with pytest.raises(sealing.CannotOpen):
                encryption.open_sealed(changed, **IDS)

    @pytest.mark.parametrize(
        "text", ["", "v2", "v2.....", "v1.a.b.c", "v2.0.a.b.c.d", "v2.é.é.é.é.é", "." * 9]
    )
    def test_refuses_what_is_none_of_ours(self, text):
        with pytest.raises(sealing.CannotOpen):
            encryption.open_sealed(text, **IDS)

    def test_opens_under_the_previous_master_key_until_it_goes(self, settings):
        old = settings.LLM_ROUTER_MASTER_KEY
        sealed = encryption.seal("key", **IDS)
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = old

        assert encryption.open_sealed(sealed, **IDS) == "key"
        settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""
        with pytest.raises(sealing.CannotOpen):
            encryption.open_sealed(sealed, **IDS)

    def test_does_not_open_as_a_providers_key(self):
        ours = encryption.seal("key", **IDS)

        with pytest.raises(sealing.CannotOpen):
            sealing.open_sealed(ours, purpose=sealing.PROVIDER_KEY, owner="c1", name="p1")


@pytest.mark.django_db
class TestSecrets:
    @pytest.fixture
    def ria(self, client):
        return Caller(client)

    @pytest.fixture
    def mio(self, client):
        return Caller(client)

    @pytest.fixture
    def path(self, ria):
        return "/" + ria("POST", body=make.body())["id"]

    def test_are_whole_for_the_owner(self, ria, path):
        given = [capability["config"] for capability in make.PARTS["capabilities"]]

        for shown in (ria("GET", path), ria("GET")[0], ria("GET", "?all=true")[0]):
            assert [capability["config"] for capability in shown["capabilities"]] == given

    def test_are_empty_for_everybody_else(self, ria, mio, path):
        """The texts are there, because clients refuse a list in which one is missing."""
        answers = [
            mio("GET", path), *mio("GET", "?all=true"),
            mio("POST", f"{path}/like"), mio("POST", f"{path}/bookmark"),
        ]  # fmt: skip
        assert len(answers) == 4
        for shown in answers:
            assert [c["type"] for c in shown["capabilities"]] == ["llm", "tts"]
            assert [c["config"] for c in shown["capabilities"]] == [BLANK, BLANK]
        mio("PATCH", path, {"capabilities": []})
        mio("DELETE", path)
        assert leaks(json.dumps(answers) + mio.answer.content.decode()) == []

    def test_are_in_no_table_log_or_representation(self, ria, mio, path, caplog):
        caplog.set_level(logging.DEBUG)
        ria("PATCH", path, make.PARTS)
        ria("GET", path)
        ria("PATCH", path, {"capabilities": [{"type": make.KEY, "config": {"apiKey": [make.KEY]}}]})
        assert ria.status == 400
        portrait = characters.details(caller=ria.id, character_id=path[1:])
        capability = Capability.objects.first()

        assert portrait.configs
        refusal = ria.answer.content.decode()
        logs = "\n".join(str(vars(record)) for record in caplog.records)
        shown = f"{portrait!r} {portrait.character!r} {capability!r} {vars(capability)}"
        assert leaks(tables() + logs + refusal + shown) == []

    def test_of_one_character_do_not_open_in_another(self, ria, mio, path):
        """A row that somebody copies in the database to their own character."""
        mine = "/" + mio("POST", body=make.body())["id"]
        stolen = Capability.objects.get(character_id=path[1:], position=0)
        Capability.objects.filter(character_id=mine[1:], position=0).update(
            sealed_config=stolen.sealed_config
        )

        configs = [capability["config"] for capability in mio("GET", mine)["capabilities"]]

        assert configs[0] == BLANK
        assert configs[1]["apiKey"] == make.KEY + "-tts"

    def test_that_do_not_open_leave_the_rest_readable(self, ria, path, settings, caplog):
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER
        caplog.set_level(logging.ERROR, portraits.logger.name)

        shown = ria("GET", path)

        assert [c["config"] for c in shown["capabilities"]] == [BLANK, BLANK]
        assert len(shown["i18n"]) == 2
        assert [record.message for record in caplog.records] == ["Unable to open a capability"] * 2

    def test_are_not_in_the_openapi_document_as_an_example(self):
        assert leaks(json.dumps(api.get_openapi_schema(), default=str)) == []
