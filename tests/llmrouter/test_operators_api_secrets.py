"""What programs of operators send and get holds no secret, and two of them do not collide."""

from __future__ import annotations

import asyncio
import logging

import orjson
import pytest
import pytest_asyncio

from airi_server.kernel.threads import in_thread
from airi_server.runtime.models import AuditEntry, OptionRevision
from llmrouter.configuration import provider_keys, publishing, rows
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import UNSPEECH_UPSTREAM
from tests.factories import accounts as make
from tests.factories.llmrouter import BASE_URL, SECRET, chat_tree, published
from tests.factories.slices import CANARY, azure, chat, dashscope, one_of_each
from tests.llmrouter.publisher import EMAIL, URL, Publisher


@pytest.fixture
def operator(client, settings, db):
    settings.ADMIN_EMAILS = [EMAIL]
    return Publisher(client)


def ciphertexts():
    """Return every ciphertext in force."""
    stored = [place.key.ciphertext for place in provider_keys.places(publishing.current_tree())]
    streaming = UNSPEECH_UPSTREAM.read().streaming
    return stored + [key.ciphertext for key in streaming.keys]


@pytest.mark.django_db
class TestSecrets:
    def test_are_in_no_answer_log_or_audit_row(self, operator, caplog):
        caplog.set_level(logging.DEBUG)
        published(chat_tree("known"))
        answers = [
            operator.seed(*one_of_each(), dryRun=True),
            operator.seed(*one_of_each()),
            operator.get(),
            operator.post(operator.get().json()["request"]),
            operator.seed(chat("known", key=None, keyEntryId="moved", baseURL=BASE_URL)),
            operator.seed(chat("a|b"), azure(region="X"), dashscope(extra=CANARY)),
            operator.seed(chat(key=f"{CANARY} {CANARY}")),
            operator.post(f'{{"slices":[{{"plaintextKey":"{CANARY}"'),
            operator.post({"slices": {CANARY: 1}, "mode": CANARY}),
        ]

        assert [answer.status_code for answer in answers] == [200] * 5 + [400] * 4
        sealed = ciphertexts()
        assert len(sealed) == len(one_of_each()) + 1
        seen = [answer.content.decode() for answer in answers]
        seen += [str(vars(record)) for record in caplog.records]
        seen += [str(vars(entry)) for entry in AuditEntry.objects.all()]
        seen += [revision.diff + revision.note for revision in RouterRevision.objects.all()]
        for text in seen:
            assert not [secret for secret in (CANARY, SECRET, *sealed) if secret in text]

    def test_are_stored_sealed(self, operator):
        operator.seed(*one_of_each())

        stored = [revision.tree for revision in RouterRevision.objects.all()]
        stored += [revision.value for revision in OptionRevision.objects.all()]
        assert CANARY.encode() not in orjson.dumps(stored)


class TestAtOnce:
    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def token(self, hot, settings):
        settings.ADMIN_EMAILS = [EMAIL]
        return await in_thread(_token)()

    async def test_all_are_written_one_after_another(self, served, token):
        bodies = [{"slices": [chat(f"m{n}")]} for n in range(6)]

        answers = await asyncio.gather(*(served.post(URL, body, token) for body in bodies))

        assert [answer.status for answer in answers] == [200] * 6
        stored, of_rows, count = await in_thread(_state)()
        assert set(stored.llm.models) == {f"m{n}" for n in range(6)}
        assert of_rows == stored
        assert count == 6

    async def test_of_one_model_the_last_stands_whole(self, served, token):
        bodies = [{"slices": [chat(overrideModel=f"v{n}")]} for n in range(6)]

        await asyncio.gather(*(served.post(URL, body, token) for body in bodies))

        stored, of_rows, count = await in_thread(_state)()
        [upstream] = stored.llm.models["chat-default"].upstreams
        assert upstream.override_model in {f"v{n}" for n in range(6)}
        assert of_rows == stored
        assert count == 6

    async def test_the_next_completion_takes_what_was_written(self, served, token):
        await served.post(URL, {"slices": [chat("brand-new")]}, token)

        models = (await served.get("/v1/models", token)).json()["data"]
        assert "brand-new" in [model["id"] for model in models]


def _token():
    return make.api_key(owner=make.user(email=EMAIL, verified=True))[1]


def _state():
    return publishing.current_tree(), rows.read(), RouterRevision.objects.count()
