from __future__ import annotations

import asyncio
import base64
import socket
import time

import pytest
from django.db import connection
from django.urls import reverse

from airi_server.runtime.audit import AuditEntry
from llmrouter.admin import probes
from llmrouter.configuration import tree
from llmrouter.configuration.models import RouterKey, RouterModel, RouterUpstream
from llmrouter.routing import health
from llmrouter.routing.evidence import FailedAttempt
from llmrouter.routing.failures import Blame
from tests.factories.llmrouter import (
    SECRET,
    chat_model,
    chat_tree,
    published,
    sealed_key,
    upstream,
)
from tests.fakes.upstream import answer, completion, hang, refuse
from tests.llmrouter.admin_pages import (
    ADD,
    BY_SCRIPT,
    CANARY,
    NEW,
    change_page,
    client_of,
    page,
    provider,
    save,
)

pytestmark = pytest.mark.django_db
ENCODED = base64.b64encode(CANARY.encode()).decode()


def probed(base_url, **model) -> probes.ProbeResult:
    """Publish one upstream, and test its key."""
    published(chat_tree(**{"chat-default": chat_model(upstream(base_url=base_url), **model)}))
    return probes.probe(probes.target_of(RouterUpstream.objects.get(), "k1"))


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class TestProbe:
    def test_sends_one_tiny_request_with_the_key(self):
        with provider() as played:
            result = probed(played.base_url, max_tokens_field="max_completion_tokens")

        (seen,) = played.seen
        assert result.is_ok
        assert seen.path == "/v1/chat/completions"
        assert seen.headers["authorization"] == f"Bearer {SECRET}"
        assert seen.body == {
            "model": "chat-default",
            "messages": [{"role": "user", "content": "ping"}],
            "max_completion_tokens": 16,
        }

    @pytest.mark.parametrize(("step", "is_held"), [(answer(), False), (refuse(401), True)])
    def test_holds_nothing_against_what_works(self, step, is_held):
        health.forget()
        with provider(step) as played:
            published(chat_tree(**{"chat-default": chat_model(upstream(base_url=played.base_url))}))
            target = probes.target_of(RouterUpstream.objects.get(), "k1")
            for scope, blame in [
                (target.key.health_id, Blame.DEAD), (target.upstream.target_id, Blame.AWAY),
            ]:  # fmt: skip
                now = time.monotonic()
                health._scopes.fail(FailedAttempt(scope, blame, "caller", "asked", now, now))
            probes.probe(target)

        assert len(health._scopes.unwell) == (2 if is_held else 0)
        health.forget()

    def test_says_whether_usage_is_reported_and_which_model_answered(self):
        body = {**completion(use=None), "model": "chat-default-2024-08-06"}
        with provider(answer(), answer(body)) as played:
            first = probed(played.base_url)
            second = probes.probe(probes.target_of(RouterUpstream.objects.get(), None))

        assert (first.reports_usage, first.answered_as) == (True, "")
        assert (second.reports_usage, second.answered_as) == (False, "chat-default-2024-08-06")

    @pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 418, 422, 429, 500, 503])
    def test_names_a_status_in_our_words(self, status):
        headers = {"location": "/elsewhere", "x-note": CANARY}
        with provider(refuse(status, message=CANARY, headers=headers)) as played:
            result = probed(played.base_url)

        assert result.outcome == str(status)
        assert str(status) in result.sentence
        assert CANARY not in repr(result) + result.sentence
        assert len(played.seen) == 1

    @pytest.mark.parametrize(
        "body", [b"<html>", b"[]", b"{}", {"error": {"message": "no"}}, b"x" * 100_000]
    )
    def test_recognizes_what_is_no_completion(self, body):
        with provider(answer(body)) as played:
            assert probed(played.base_url).outcome == "bad_answer"

    @pytest.mark.parametrize(
        ("base_url", "outcome"),
        [
            (f"http://127.0.0.1:{closed_port()}/v1", "refused"),
            ("http://host.invalid/v1", "unknown_host"),
        ],
        ids=["refused", "unknown host"],
    )
    def test_tells_apart_why_there_is_no_connection(self, base_url, outcome):
        assert probed(base_url).outcome == outcome

    def test_recognizes_a_server_without_tls(self):
        with provider() as played:
            assert probed(played.base_url.replace("http:", "https:")).outcome == "tls"

    def test_gives_up_when_nobody_answers(self, monkeypatch):
        monkeypatch.setattr(probes, "TIMEOUT_S", 0.2)
        began = time.monotonic()
        with provider(hang()) as played:
            result = probed(played.base_url)

        assert result.outcome == "timeout"
        assert time.monotonic() - began < 5

    def test_says_that_a_key_does_not_open(self):
        published()
        target = probes.target_of(RouterUpstream.objects.get(), "k1")
        lost = probes.ProbeTarget(target.route, target.upstream, sealed_for_another(target.key))

        assert probes.probe(lost).outcome == "decrypt"

    def test_a_disabled_key_is_tested_and_stays_disabled(self):
        keys = [sealed_key(), sealed_key(key_id="k2", disabled=True)]
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=keys))}))

        target = probes.target_of(RouterUpstream.objects.get(), "k2")

        assert target.key.id == "k2"
        assert RouterKey.objects.get(key_id="k2").disabled

    def test_refuses_a_speech_upstream(self):
        key = sealed_key(model="voice", base_url="https://h/v1")
        speech = tree.TTSModel(
            provider="openai",
            upstreams=(tree.TTSUpstream(base_url="https://h/v1", keys=(key,)),),
        )
        published(tree.Tree(tts=tree.TTSSection(models={"voice": speech})))

        with pytest.raises(probes.NotTestable, match="Only chat"):
            probes.target_of(RouterUpstream.objects.get(), None)


def sealed_for_another(key):
    return type(key)(key.id, key.sealed, "another-model", key.health_id)


class TestFromTheForm:
    @pytest.fixture
    def operator(self):
        return client_of("publish_router_config", "probe_upstream")

    @pytest.mark.parametrize("headers", [None, BY_SCRIPT])
    def test_tests_a_provider_that_was_never_saved(self, operator, headers, caplog):
        caplog.set_level("DEBUG")
        hostile = {**completion(CANARY), "model": CANARY, "x": ENCODED}
        with provider(answer(hostile, headers={"x-key": CANARY, "x-code": ENCODED})) as played:
            changes = {"upstreams-0-base_url": played.base_url, "note": "", "_probe": "upstreams-0"}
            response = save(operator, reverse(ADD), headers, **NEW | changes)

        assert "It works" in response.content.decode()
        assert played.seen[0].headers["authorization"] == f"Bearer {CANARY}"
        assert not RouterModel.objects.exists()
        everything = response.content.decode() + caplog.text + str(AuditEntry.objects.values())
        assert CANARY not in everything
        assert ENCODED not in everything

    def test_tests_a_key_of_the_upstream_page_as_entered(self, operator):
        with provider() as played:
            published(chat_tree(**{"chat-default": chat_model(upstream(base_url=played.base_url))}))
            url = page("routerupstream_change", RouterUpstream.objects.get().pk)
            sealed = RouterKey.objects.get().sealed
            save(operator, url, **{"keys-0-value": CANARY, "_probe": "keys-0"})

        assert played.seen[0].headers["authorization"] == f"Bearer {CANARY}"
        assert RouterKey.objects.get().sealed == sealed

    def test_a_fault_shows_at_its_field_and_nothing_is_sent(self, operator):
        with provider() as played:
            changes = {"upstreams-0-base_url": played.base_url, "max_output_tokens": "0"}
            response = save(operator, reverse(ADD), **NEW | changes | {"_probe": "upstreams-0"})

        assert "Must be at least 1" in response.content.decode()
        assert not played.seen

    def test_says_when_there_is_nothing_to_test(self, operator):
        published()
        response = save(operator, change_page(), BY_SCRIPT, _probe="upstreams-7")

        assert "nothing to test" in response.content.decode()

    def test_leaves_a_row_in_the_audit_log(self, operator):
        with provider(refuse(401)) as played:
            published(chat_tree(**{"chat-default": chat_model(upstream(base_url=played.base_url))}))
            save(operator, change_page(), _probe="upstreams-0")

        entry = AuditEntry.objects.get(action="llmrouter.probe_upstream")
        assert entry.subject_id == str(RouterUpstream.objects.get().pk)
        assert entry.facts["outcome"] == "401"
        assert "does not accept the key" in entry.sentence

    def test_needs_a_permission_of_its_own(self):
        published()
        publisher = client_of("publish_router_config")

        assert 'name="_probe"' not in publisher.get(change_page()).content.decode()
        assert save(publisher, change_page(), _probe="upstreams-0").status_code == 403


class TestPage:
    def url(self):
        return page("routerupstream_test", RouterUpstream.objects.get().pk)

    @pytest.mark.parametrize("headers", [None, BY_SCRIPT])
    def test_tests_what_is_in_force(self, headers):
        tester = client_of("probe_upstream")
        with provider() as played:
            published(chat_tree(**{"chat-default": chat_model(upstream(base_url=played.base_url))}))
            shown = tester.get(self.url()).content.decode()
            key = RouterKey.objects.get()
            answer = {"headers": headers, "follow": True}
            response = tester.post(self.url(), {"_probe": key.pk}, **answer)

        assert key.fingerprint in shown
        assert response.redirect_chain == ([] if headers else [(self.url(), 302)])
        assert "It works" in response.content.decode()
        assert AuditEntry.objects.filter(action="llmrouter.probe_upstream").count() == 1

    @pytest.mark.parametrize("key", ["", "999", "\x00", "x"])
    def test_refuses_an_unknown_key(self, key):
        published()
        response = client_of("probe_upstream").post(self.url(), {"_probe": key}, follow=True)

        assert "no such key" in response.content.decode()

    def test_needs_the_permission(self):
        published()
        publisher = client_of("publish_router_config")

        assert publisher.get(self.url()).status_code == 403
        assert publisher.post(self.url(), {"_probe": "1"}).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_is_sent_outside_of_transactions_and_locks():
    operator = client_of("publish_router_config", "probe_upstream")
    busy = []

    async def look(request):
        busy.append(await asyncio.to_thread(open_transactions_and_locks))
        return await answer()(request)

    with provider(look) as played:
        published(chat_tree(**{"chat-default": chat_model(upstream(base_url=played.base_url))}))
        save(operator, change_page(), _probe="upstreams-0")

    assert busy == [0]


def open_transactions_and_locks() -> int:
    """Count, from a connection of its own, who holds something while the provider is asked."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
                " WHERE locktype = 'advisory' AND datname = current_database())"
                " + (SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state LIKE 'idle in transaction%%')"
            )
            return int(cursor.fetchone()[0])
    finally:
        connection.close()
