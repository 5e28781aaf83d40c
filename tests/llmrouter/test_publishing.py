from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airi_server.kernel import database, sealing
from airi_server.kernel.threads import in_thread
from airi_server.runtime import published as versions
from airi_server.runtime.models import PublishedVersion
from llmrouter.configuration import publishing, rows, tree
from llmrouter.configuration.models import RouterKey, RouterModel, RouterRevision, RouterUpstream
from tests.factories.llmrouter import (
    NOON,
    SECRET,
    chat_model,
    chat_tree,
    hot_path,
    published,
    sealed_key,
    upstream,
)
from tests.factories.router_trees import trees

OTHER_MASTER = "b3RoZXItbWFzdGVyLWtleS1vZi0zMi1ieXRlcy1sZW4="


def version() -> int:
    row = PublishedVersion.objects.filter(name="router").first()
    return row.version if row else 0


@pytest.mark.django_db
class TestPublish:
    def test_writes_rows_a_revision_and_a_version(self):
        config = chat_tree("chat-default")
        revision = published(config, note="first", by="ops@example.com")

        assert (revision.number, revision.note, revision.published_at) == (1, "first", NOON)
        assert revision.published_by == "ops@example.com"
        assert publishing.current_tree() == rows.read() == config
        assert RouterKey.objects.get().fingerprint == sealing.fingerprint(SECRET)
        assert (publishing.current_number(), version()) == (1, 1)

    def test_changes_nothing_when_nothing_changed(self):
        config = chat_tree("chat-default")
        published(config)

        assert publishing.publish(config, note="again", by="x", at=NOON) is None
        assert (RouterRevision.objects.count(), version()) == (1, 1)

    def test_leaves_the_rows_of_other_models_alone(self):
        config = chat_tree("a", "b")
        published(config)
        before = RouterUpstream.objects.get(model__name="a").pk

        changed = chat_model(upstream(model="b", weight=2))
        published(tree.Tree(llm=tree.LLMSection(models={**config.llm.models, "b": changed})))

        assert RouterUpstream.objects.get(model__name="a").pk == before
        assert RouterUpstream.objects.get(model__name="b").weight == 2

    def test_repairs_rows_that_were_changed_behind_its_back(self):
        config = chat_tree("chat-default")
        published(config)
        RouterUpstream.objects.update(weight=7)

        assert publishing.publish(config, note="", by="x", at=NOON) is None
        assert rows.read() == config

    def test_refuses_when_somebody_published_in_between(self):
        published(chat_tree("a"))

        for expected in (0, 2):
            with pytest.raises(publishing.RevisionConflict) as refused:
                publishing.publish(chat_tree("b"), note="", by="x", at=NOON, expected=expected)
            assert refused.value.status == 409
        assert set(publishing.current_tree().llm.models) == {"a"}
        published(chat_tree("b"), expected=1)

    def test_refuses_a_new_key_that_does_not_open_here(self):
        foreign = tree.ConfiguredKey(id="k1", ciphertext=sealed_key(model="other").ciphertext)

        with pytest.raises(tree.InvalidTree) as refused:
            published(chat_tree(a=chat_model(upstream(keys=[foreign]))))
        path = "llm.models.a.upstreams.0.keys.0.ciphertext"
        assert [fault["path"] for fault in refused.value.details] == [path]
        assert not RouterModel.objects.exists()

    @pytest.mark.parametrize("secret", ["", "two words", "tab\t", "new\n", "ключ", "x" * 8193])
    def test_refuses_a_new_key_that_no_header_can_carry(self, secret):
        sealed = sealing.seal(secret, purpose=sealing.PROVIDER_KEY, owner="a", name="k1")
        key = tree.ConfiguredKey(id="k1", ciphertext=sealed[:16384])

        with pytest.raises(tree.InvalidTree) as refused:
            published(chat_tree(a=chat_model(upstream(keys=[key]))))
        assert not secret or secret not in refused.value.message

    def test_a_lost_key_does_not_stop_other_changes(self, settings):
        config = chat_tree("a")
        published(config)
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER

        merged = {**config.llm.models, **chat_tree("b").llm.models}
        published(tree.Tree(llm=tree.LLMSection(models=merged)))

        assert RouterKey.objects.get(upstream__model__name="a").fingerprint

    def test_the_diff_holds_neither_key_nor_ciphertext(self):
        published(chat_tree("a"))
        revision = published(chat_tree("a"))

        assert revision.diff.count("<ciphertext ") == 2
        assert SECRET not in revision.diff
        assert "v3." not in revision.diff

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(trees(), min_size=1, max_size=3))
    def test_rows_and_tree_always_agree(self, configs):
        with transaction.atomic():
            for config in configs:
                publishing.publish(config, note="", by="x", at=NOON)
                assert rows.read() == publishing.current_tree() == config
            transaction.set_rollback(True)


@pytest.mark.django_db
class TestRepublish:
    def test_puts_an_older_revision_in_force_as_a_new_one(self):
        published(chat_tree("a"))
        published(chat_tree("b"))

        again = publishing.republish(1, note="undo", by="x", at=NOON)

        assert again is not None
        assert again.number == 3
        assert set(publishing.current_tree().llm.models) == {"a"}
        assert rows.read() == publishing.current_tree()

    def test_refuses_a_number_that_is_none(self):
        with pytest.raises(publishing.UnknownRevision):
            publishing.republish(9, note="", by="x", at=NOON)

    def test_refuses_keys_of_a_retired_master_key(self, settings):
        published(chat_tree("a"))
        settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER
        published(chat_tree("b"))

        with pytest.raises(tree.InvalidTree, match="master key"):
            publishing.republish(1, note="", by="x", at=NOON)


@pytest.mark.django_db(transaction=True)
class TestActive:
    pytestmark = pytest.mark.asyncio

    async def test_is_refused_until_something_is_published(self):
        async with hot_path():
            await versions.refresh()
            with pytest.raises(publishing.NotConfigured) as refused:
                publishing.active()

        assert (refused.value.status, refused.value.code) == (503, "CONFIG_NOT_SET")
        assert refused.value.message == "LLM_ROUTER_CONFIG not set"

    async def test_follows_what_is_published_with_one_load_each(self):
        async with hot_path():
            await in_thread(published)(chat_tree("a"))
            await versions.refresh()
            assert publishing.active().available == ("a",)
            await versions.refresh()  # settles the hints that the first connection raised
            before = database.round_trips
            await versions.refresh()
            assert database.round_trips == before

            await in_thread(published)(chat_tree("b"))
            await versions.refresh()
            assert (publishing.active().revision, publishing.active().available) == (2, ("b",))

    async def test_keeps_its_routes_when_newer_code_publishes_what_it_cannot_read(self, caplog):
        async with hot_path():
            await in_thread(published)(chat_tree("a"))
            await versions.refresh()
            await in_thread(self._publish_from_the_future)()
            await versions.refresh()

            assert publishing.active().available == ("a",)
        assert "unreadable" in caplog.text

    async def test_fails_when_it_has_nothing_to_keep(self):
        async with hot_path():
            await in_thread(self._publish_from_the_future)()
            with pytest.raises(publishing.UnreadableRevision):
                await versions.refresh()

    @staticmethod
    def _publish_from_the_future():
        with transaction.atomic():
            RouterRevision.objects.create(
                number=publishing.current_number() + 1,
                tree={"llm": {"models": {}}, "new": 1},
                diff="",
                published_by="x",
                published_at=NOON,
            )
            versions.announce("router")


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    def test_two_publishers_from_one_revision_leave_one_winner(self):
        start, outcomes = threading.Barrier(2), []

        def publish(name):
            start.wait()
            try:
                published(chat_tree(name), expected=0)
                outcomes.append("published")
            except publishing.RevisionConflict:
                outcomes.append("refused")
            finally:
                connection.close()

        threads = [threading.Thread(target=publish, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["published", "refused"]
        assert rows.read() == publishing.current_tree()
