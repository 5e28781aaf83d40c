"""Where keys really go: two providers listen, and one of them must never hear the other's key."""

from __future__ import annotations

import dataclasses
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from airi_server.kernel import sealing
from airi_server.kernel.threads import in_thread
from llmrouter.admin import probes
from llmrouter.configuration import origins, provider_keys, tree
from llmrouter.configuration.models import RouterKey, RouterModel, RouterUpstream
from tests.factories import gateway
from tests.factories.llmrouter import (
    SECRET,
    chat_model,
    chat_tree,
    older_key,
    published,
    sealed_key,
)
from tests.factories.llmrouter import (
    upstream as made,
)
from tests.fakes.upstream import ScriptedUpstream, answer
from tests.llmrouter.admin_pages import (
    BY_SCRIPT,
    CANARY,
    change_page,
    client_of,
    page,
    provider,
    save,
)
from tests.llmrouter.test_key_origins import put_in_force

PATH = "/v1/chat/completions"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def providers():
    """Two providers: the one that the key was entered for, and another."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(provider()) for _ in range(2))


def key_for(base_url, *, older, **words):
    return older_key(**words) if older else sealed_key(base_url=base_url, **words)


@pytest.mark.django_db
@pytest.mark.parametrize("older", [False, True], ids=["sealed for its origin", "sealed for none"])
class TestButton:
    """*Test* sends what the form says, before anything is published."""

    @pytest.fixture
    def operator(self) -> Client:
        return client_of("publish_router_config", "probe_upstream")

    @pytest.fixture
    def there(self, providers, older):
        """The key is in force at the first provider; return the other's address."""
        mine, theirs = providers
        published(
            chat_tree(
                **{
                    "chat-default": chat_model(
                        made(
                            base_url=mine.base_url,
                            keys=[
                                key_for(mine.base_url, older=older, key_id=key_id)
                                for key_id in ("k1", "k2")
                            ],
                        )
                    )
                }
            )
        )
        return theirs.base_url

    def upstream_page(self):
        return page("routerupstream_change", RouterUpstream.objects.get().pk)

    @pytest.mark.parametrize("line", ["keys-0", "keys-1"])
    @pytest.mark.parametrize("headers", [None, BY_SCRIPT])
    def test_on_an_edited_address_sends_no_stored_key(
        self, operator, providers, there, line, headers
    ):
        shown = save(operator, self.upstream_page(), headers, base_url=there, _probe=line)

        assert "This key was entered for" in shown.content.decode()
        assert [each.seen for each in providers] == [[], []]

    def test_nor_on_the_page_of_the_model(self, operator, providers, there):
        edited = {"upstreams-0-base_url": there, "_probe": "upstreams-0"}
        shown = save(operator, change_page(), **edited)

        assert "This key was entered for" in shown.content.decode()
        assert [each.seen for each in providers] == [[], []]

    def test_nor_one_of_two_when_the_other_is_entered_again(self, operator, providers, there):
        edited = {"base_url": there, "keys-0-value": CANARY}
        save(operator, self.upstream_page(), **edited, _probe="keys-1")
        assert [each.seen for each in providers] == [[], []]

        save(operator, self.upstream_page(), **edited, _probe="keys-0")
        [asked] = providers[1].seen
        assert asked.headers["authorization"] == f"Bearer {CANARY}"

    def test_sends_it_where_it_belongs(self, operator, providers, there):
        shown = save(
            operator, self.upstream_page(), base_url=providers[0].base_url + "/", _probe="keys-0"
        )

        assert "It works" in shown.content.decode()
        assert [seen.headers["authorization"] for seen in providers[0].seen] == [f"Bearer {SECRET}"]

    def test_of_rows_that_somebody_changed_in_the_database_sends_nothing(
        self, operator, providers, there
    ):
        RouterUpstream.objects.update(base_url=there)
        key = RouterKey.objects.get(key_id="k1")
        url = page("routerupstream_test", RouterUpstream.objects.get().pk)

        shown = operator.post(url, {"_probe": key.pk}, follow=True)

        assert "This key was entered for" in shown.content.decode()
        assert [each.seen for each in providers] == [[], []]

    def test_of_upstreams_that_traded_places_sends_each_its_own(self, operator, providers, older):
        places = [
            made(
                base_url=each.base_url,
                id=name,
                keys=[key_for(each.base_url, older=older, secret=f"sk-{name}")],
            )
            for name, each in zip("xy", providers, strict=True)
        ]
        published(chat_tree(**{"chat-default": chat_model(*places)}))
        traded = {"upstreams-0-position": "2", "upstreams-1-position": "1"}

        for line in ("upstreams-0", "upstreams-1"):
            save(operator, change_page(), **traded, _probe=line)

        assert RouterModel.objects.count() == 1
        heard = [[seen.headers["authorization"] for seen in each.seen] for each in providers]
        assert heard == [["Bearer sk-x"], ["Bearer sk-y"]]


@pytest.mark.django_db
def test_a_target_for_another_origin_is_opened_by_nobody(providers):
    """The last line of defense of the button: the seal itself."""
    mine, theirs = providers
    published(chat_tree(**{"chat-default": chat_model(made(base_url=mine.base_url))}))
    target = probes.target_of(RouterUpstream.objects.get(), "k1")
    stray = type(target.upstream)(
        **{
            **{name: getattr(target.upstream, name) for name in target.upstream.__slots__},
            "url": f"{theirs.base_url}/chat/completions",
            "origin": origins.of(theirs.base_url),
        }
    )

    result = probes.probe(probes.ProbeTarget(target.route, stray, target.key))

    assert (result.outcome, theirs.seen) == ("origin", [])
    assert "was entered for another host" in result.sentence


@pytest.mark.django_db
def test_a_test_asks_the_origin_that_was_checked_and_no_other(providers):
    """Should the client of the tests read an address in another way than the hot path does."""
    mine, theirs = providers
    published(chat_tree(**{"chat-default": chat_model(made(base_url=mine.base_url))}))
    target = probes.target_of(RouterUpstream.objects.get(), "k1")
    astray = dataclasses.replace(target.upstream, url=f"{theirs.base_url}/chat/completions")

    result = probes.probe(probes.ProbeTarget(target.route, astray, target.key))

    assert (result.outcome, theirs.seen) == ("origin", [])


@pytest.mark.asyncio
class TestCompletions:
    async def test_a_key_in_a_forged_revision_is_skipped_and_counted(
        self, served, upstream, counted, caplog
    ):
        """What only somebody with the database's password can make: a key at another host."""
        caller = await gateway.caller()
        async with ScriptedUpstream() as theirs:
            await gateway.route(upstream.base_url)
            await in_thread(_forge)(upstream.base_url, theirs.base_url)

            response = await served.post(PATH, BODY, caller.key)

            assert theirs.seen == []
        assert response.status == 503
        assert response.json()["error"]["code"] == "DECRYPT_FAILED"
        [row] = await gateway.requests()
        assert [(failure["key"], failure["reason"]) for failure in row.failures or ()] == [
            ("k1", "origin")
        ]
        assert counted["DECRYPT_FAILURES"] == [{"provider": "127.0.0.1", "key_entry_id": "k1"}]
        assert "A provider key was entered for another origin" in caplog.text
        assert SECRET not in caplog.text

    async def test_another_upstream_answers_in_its_place(self, served, upstream):
        caller = await gateway.caller()
        async with ScriptedUpstream() as theirs:
            await gateway.route(upstream.base_url)
            await in_thread(_forge)(upstream.base_url, theirs.base_url, upstream.base_url)

            response = await served.post(PATH, BODY, caller.key)

            assert theirs.seen == []
        assert response.status == 200

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, served, upstream, status):
        caller = await gateway.caller()
        async with ScriptedUpstream() as theirs:
            await gateway.route(upstream.base_url)
            elsewhere = {"Location": f"{theirs.base_url}/chat/completions"}
            upstream.script(answer(b"", status=status, headers=elsewhere))

            response = await served.post(PATH, BODY, caller.key)

            assert theirs.seen == []
        assert response.status == 502
        assert len(upstream.seen) == 1

    async def test_the_key_stands_in_the_authorization_header_and_nowhere_else(
        self, served, upstream
    ):
        """A template, a path and a model name may say `{KEY}`: only the template means it."""
        caller = await gateway.caller()
        tricky = made(
            base_url=f"{upstream.base_url}/{{KEY}}",
            keys=[sealed_key(base_url=upstream.base_url)],
            override_model="{KEY}",
            header_template="http://elsewhere.example/{KEY}",
        )
        models: dict[str, Any] = {"chat-default": chat_model(tricky)}
        await gateway.publish_tree(**models)

        await served.post(PATH, BODY, caller.key)

        [seen] = upstream.seen
        assert seen.headers.pop("authorization") == f"http://elsewhere.example/{SECRET}"
        assert SECRET not in f"{seen}"
        assert seen.body["model"] == "{KEY}"

    async def test_older_keys_go_where_they_stand_in_force(self, served, upstream):
        caller = await gateway.caller()
        place = made(base_url=upstream.base_url, keys=[older_key()])
        models: dict[str, Any] = {"chat-default": chat_model(place)}
        await gateway.publish_tree(**models)

        assert (await served.post(PATH, BODY, caller.key)).status == 200
        [seen] = upstream.seen
        assert seen.headers["authorization"] == f"Bearer {SECRET}"


def _forge(mine, *base_urls):
    key = sealed_key(base_url=mine)
    places = [made(base_url=url, id=f"u{n}", keys=[key]) for n, url in enumerate(base_urls)]
    put_in_force(chat_tree(**{"chat-default": chat_model(*places)}))


@pytest.mark.parametrize(
    "template", ["{KEY}\r\nhost: evil.example", "{KEY}\n", "{KEY}{KEY}", "Bearer", "{KEY}\u200b"]
)
def test_a_template_holds_one_key_on_one_line(template):
    config = tree.dump(chat_tree())
    config["llm"]["models"]["chat-default"]["upstreams"][0]["headerTemplate"] = template

    with pytest.raises(tree.InvalidTree):
        tree.parse(config)


class TestWiping:
    """A key that was opened does not stay in memory: the buffer it came in is zeroed."""

    @pytest.fixture
    def buffers(self, monkeypatch):
        lent: list[bytearray] = []
        opened = sealing.open_sealed

        def open_sealed(sealed, **words):
            lent.append(opened(sealed, **words))
            return lent[-1]

        monkeypatch.setattr(sealing, "open_sealed", open_sealed)
        return lent

    @staticmethod
    def wiped(buffers) -> int:
        """Return how many were lent; every one of them has to be zeroes by now."""
        assert all(buffer and not any(buffer) for buffer in buffers), buffers
        return len(buffers)

    def test_follows_everything_that_opens_a_key(self, buffers):
        place = {"model": "m", "key_id": "k", "origin": "https://h:443"}
        sealed = provider_keys.seal(SECRET, **place)

        assert provider_keys.fingerprint(sealed, **place)
        assert provider_keys.is_sealed(SECRET, sealed, **place)
        assert provider_keys.resealed(sealed, **place, new_key_id="other")
        assert provider_keys.authorization(sealed, **place, template="{KEY}") == SECRET

        assert self.wiped(buffers) == 4

    def test_follows_a_key_that_cannot_be_sent(self, buffers):
        place = {"model": "m", "key_id": "k", "origin": "https://h:443"}
        words = {"purpose": sealing.PROVIDER_KEY, "owner": "m", "name": "k"}
        sealed = sealing.seal("two words", **words, origin="https://h:443")

        with pytest.raises(provider_keys.UnusableKey):
            provider_keys.fingerprint(sealed, **place)
        assert self.wiped(buffers) == 1

    @pytest.mark.django_db
    def test_follows_a_test(self, buffers):
        with provider() as played:
            published(chat_tree(**{"chat-default": chat_model(made(base_url=played.base_url))}))
            probes.probe(probes.target_of(RouterUpstream.objects.get(), "k1"))

        assert len(played.seen) == 1
        assert self.wiped(buffers) >= 2

    @pytest.mark.asyncio
    async def test_follows_a_completion(self, served, upstream, buffers):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        buffers.clear()

        for stream in (False, True):
            await served.post(PATH, {**BODY, "stream": stream}, caller.key)

        assert len(upstream.seen) == 2
        assert self.wiped(buffers) == 2

    def test_is_the_business_of_one_module(self):
        """Whoever opens a provider key elsewhere would have to remember all of this."""
        opening = {
            str(file)
            for app in ("llmrouter", "airi_server", "accounts", "billing", "chats")
            for file in Path(app).rglob("*.py")
            if re.search(r"\bopen_sealed\(", file.read_text())
        }
        assert opening == {
            "airi_server/kernel/sealing.py",
            "chats/characters/portraits.py",
            "chats/characters/resealing.py",
            "chats/characters/encryption.py",
            "llmrouter/configuration/provider_keys.py",
        }
