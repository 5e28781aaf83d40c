from __future__ import annotations

import threading
import time

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from airi_server.kernel import sealing
from airi_server.runtime.audit import AuditEntry
from llmrouter.configuration import publishing, rows, tree
from llmrouter.configuration.models import RouterKey, RouterModel, RouterRevision, RouterUpstream
from tests.factories.llmrouter import (
    NOON,
    chat_model,
    chat_tree,
    published,
    sealed_key,
    secret_of,
    upstream,
)
from tests.llmrouter.admin_pages import (
    ADD,
    CANARY,
    NEW,
    change_page,
    client_of,
    errors_of,
    page,
    save,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator():
    return client_of("publish_router_config")


class TestUpstreamPage:
    def url(self):
        return page("routerupstream_change", RouterUpstream.objects.get().pk)

    def keys(self):
        return publishing.current_tree().llm.models["chat-default"].upstreams[0].keys

    def two_keys(self):
        keys = [sealed_key(), sealed_key(key_id="k2")]
        published(chat_tree(**{"chat-default": chat_model(upstream(keys=keys))}))

    def test_disables_rotates_and_reorders_keys(self, operator):
        self.two_keys()
        before = self.keys()

        response = save(
            operator,
            self.url(),
            **{
                "keys-0-disabled": "on",
                "keys-1-value": CANARY,
                "keys-0-position": "2",
                "keys-1-position": "1",
            },
        )

        assert response.status_code == 302, errors_of(response)
        after = self.keys()
        assert [(key.id, key.disabled) for key in after] == [("k2", False), ("k1", True)]
        assert after[1].ciphertext == before[0].ciphertext
        assert secret_of(after[0]) == CANARY

    def test_adds_and_deletes_keys(self, operator):
        self.two_keys()
        new = {"keys-TOTAL_FORMS": "3", "keys-2-key_id": "k3", "keys-2-value": CANARY}

        response = save(operator, self.url(), **{"keys-0-DELETE": "on", **new})

        assert response.status_code == 302, errors_of(response)
        assert [key.id for key in self.keys()] == ["k2", "k3"]
        assert sorted(RouterKey.objects.values_list("position", flat=True)) == [1, 2]

    def test_does_not_rename_a_key(self, operator):
        self.two_keys()
        save(operator, self.url(), **{"keys-0-key_id": "renamed"})

        assert [key.id for key in self.keys()] == ["k1", "k2"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"keys-0-DELETE": "on", "keys-1-DELETE": "on"}, "at least 1"),
            ({"keys-TOTAL_FORMS": "3", "keys-2-key_id": "k3"}, "Enter the key"),
            ({"keys-0-value": f" {CANARY}"}, "without white space"),
            (
                {"keys-TOTAL_FORMS": "3", "keys-2-key_id": "k1", "keys-2-value": CANARY},
                "duplicate data",
            ),
        ],
    )
    def test_refuses_what_would_not_work(self, operator, changes, message):
        self.two_keys()
        response = save(operator, self.url(), **changes)

        assert message in errors_of(response)
        assert CANARY not in response.content.decode()
        assert publishing.current_number() == 1

    def test_deleting_the_last_upstream_is_refused(self, operator):
        self.two_keys()
        pk = RouterUpstream.objects.get().pk

        answer = operator.post(page("routerupstream_delete", pk), {"post": "yes"}, follow=True)
        (said,) = answer.context["messages"]
        assert str(said).startswith("Nothing was saved.")
        assert RouterUpstream.objects.filter(pk=pk).exists()
        assert publishing.current_number() == 1


class TestDefaultsPage:
    def test_edits_and_publishes(self, operator):
        published()
        save(operator, page("routerdefaults_change", 1), fallback_http_codes="429,500")

        assert publishing.current_tree().defaults.fallback_http_codes == (429, 500)

    def test_refuses_what_is_out_of_range(self, operator):
        published()
        response = save(operator, page("routerdefaults_change", 1), full_chain_timeout_ms="0")

        assert "Must be at least 1." in errors_of(response)

    def test_is_added_once(self, operator):
        response = save(operator, page("routerdefaults_add"), idle_timeout_ms="5000")

        assert response.status_code == 302, errors_of(response)
        assert operator.get(page("routerdefaults_add")).status_code == 403
        assert publishing.current_tree().defaults.idle_timeout_ms == 5000


class TestRevisionPages:
    def test_cannot_be_written(self, operator):
        published()
        for name in ("change", "delete"):
            url = page(f"routerrevision_{name}", 1)
            assert operator.post(url, {"note": "x"}).status_code == 403
        assert operator.get(page("routerrevision_add")).status_code == 403

    def test_shows_what_changed(self, operator):
        published()

        shown = operator.get(page("routerrevision_change", 1)).content.decode()
        assert "llm.models.chat-default.upstreams.0.baseURL" in shown


class TestPermission:
    @pytest.mark.parametrize(
        "permissions", [(), ("add_routermodel", "change_routermodel", "delete_routermodel")]
    )
    def test_other_permissions_do_not_publish(self, permissions):
        published()
        staff = client_of(*permissions)

        assert staff.post(reverse(ADD), NEW).status_code == 403
        assert staff.post(change_page(), NEW).status_code == 403
        pk = RouterModel.objects.get().pk
        url = page("routermodel_delete", pk)
        assert staff.post(url, {"post": "yes"}).status_code == 403
        assert publishing.current_number() == 1

    def test_who_may_look_sees_no_form(self):
        published()
        viewer = client_of("view_routermodel", "view_routerrevision")

        assert viewer.get(change_page()).status_code == 200
        assert viewer.post(change_page(), NEW).status_code == 403
        again = page("routerrevision_publish_again", 1)
        assert again not in viewer.get(page("routerrevision_change", 1)).content.decode()
        assert viewer.get(again).status_code == 403
        assert viewer.post(again, {"note": "x", "expected": "1"}).status_code == 403

    def test_strangers_are_sent_to_the_login(self):
        assert Client().get(reverse(ADD)).status_code == 302


class TestCanary:
    def test_a_key_is_on_no_page_in_no_log_and_in_no_revision(self, operator, caplog):
        save(operator, reverse(ADD), **NEW)
        save(operator, change_page(), max_output_tokens="7")
        published(tree.Tree())
        publishing.republish(1, note="", by="x", at=NOON)
        published(chat_tree("z"))
        save(operator, reverse(ADD), **NEW | {"name": "other"})
        model, one = (
            RouterModel.objects.get(name="other"),
            RouterUpstream.objects.get(model__name="other"),
        )
        pages = [
            *(page(f"router{name}_changelist") for name in ("model", "upstream", "revision")),
            *(page("routerrevision_change", number) for number in (1, 2, 3, 4, 5, 6)),
            page("routerrevision_publish_again", 1),
            page("routermodel_plan", model.pk),
            page("routermodel_change", model.pk),
            page("routermodel_delete", model.pk),
            page("routermodel_history", model.pk),
            page("routerupstream_change", one.pk),
            page("routerdefaults_change", 1),
        ]

        shown = "".join(operator.get(url).content.decode() for url in pages)
        kept = [
            repr(vars(row)) for row in (*RouterRevision.objects.all(), *AuditEntry.objects.all())
        ]
        everything = shown + caplog.text + "".join(kept) + repr(publishing.current_table())

        assert sealing.fingerprint(CANARY) in shown
        assert CANARY not in everything
        assert "v3." not in shown + repr(publishing.current_table())


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    def test_a_page_waits_for_who_is_publishing_and_keeps_what_they_wrote(self):
        published(chat_tree("a", "b"))
        operator, pk = client_of("publish_router_config"), RouterModel.objects.get(name="a").pk

        with transaction.atomic():
            publishing.lock()
            deleting = threading.Thread(target=self.delete, args=(operator, pk))
            deleting.start()
            self.wait_for_a_waiter()
            merged = {**publishing.current_tree().llm.models, **chat_tree("c").llm.models}
            published(tree.Tree(llm=tree.LLMSection(models=merged)))
        deleting.join()

        assert set(publishing.current_tree().llm.models) == {"b", "c"}
        assert rows.read() == publishing.current_tree()

    @staticmethod
    def delete(client, pk):
        try:
            client.post(page("routermodel_delete", pk), {"post": "yes"})
        finally:
            connection.close()

    @staticmethod
    def wait_for_a_waiter():
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        deadline = time.monotonic() + 1.5
        with connection.cursor() as cursor:
            while time.monotonic() < deadline:
                if cursor.execute(waiting).fetchone()[0]:
                    return
        raise AssertionError("nobody waits for the publishing lock")
