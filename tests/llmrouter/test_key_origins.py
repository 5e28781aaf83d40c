"""Whoever may edit a route must not be able to send its keys to a host of their own.

Here: what may be published. What is really sent is in `test_keys_sent.py`.
"""

from __future__ import annotations

import base64
from io import StringIO

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from airi_server.kernel import sealing
from airi_server.kernel.errors import InvalidRequest
from airi_server.runtime import options as operator_options
from airi_server.runtime import published as announced
from llmrouter.configuration import fields, origins, publishing, rows, tree
from llmrouter.configuration.models import RouterRevision, RouterUpstream
from llmrouter.configuration.options import UNSPEECH_UPSTREAM
from llmrouter.configuration.seeding import requests
from llmrouter.configuration.seeding import seed as seeding
from llmrouter.upstream import client
from tests.factories.llmrouter import (
    NOON,
    chat_model,
    chat_tree,
    older_key,
    published,
    sealed_key,
    upstream,
)
from tests.factories.slices import CANARY, azure, chat, unspeech
from tests.llmrouter.admin_pages import change_page, client_of, errors_of, page, save
from tests.llmrouter.publisher import EMAIL, Publisher

pytestmark = pytest.mark.django_db
HERE = "https://provider.example/v1"
ELSEWHERE = "https://attacker.example/v1"
OTHERS = [
    ELSEWHERE,
    "http://provider.example/v1",
    "https://provider.example:8443/v1",
    "https://provider.example:0/v1",
    "https://provider.example./v1",
    "https://provider.example.attacker.example/v1",
    "https://xn--provder-w4a.example/v1",
    "https://provider.exarnple/v1",
    "https://provider-example/v1",
    "https://attacker.example/provider.example/v1",
    "https://attacker.example:443/https://provider.example/v1",
]
SAME = [
    "https://provider.example/v2",
    "https://PROVIDER.example/v1",
    "https://provider.example:443/v1",
    "https://provider.example:0443/v1",
    "https://provider.example:/v1",
    "https://provider.example",
    "https://provider.example//attacker.example/v1",
    "https://provider.example/v1/../../v2",
]
BELONGS = r"entered for https://provider\.example:443"
UNREADABLE = [
    "https://provider.example@attacker.example/v1",
    "https://provider.example:443@attacker.example/v1",
    "https://provider.example\\@attacker.example/v1",
    "https://attacker.example#@provider.example/v1",
    "https://attacker.example?@provider.example/v1",
    "https://attacker.example\n.provider.example/v1",
    "https://provider.example\u200b.attacker.example/v1",
    "https://pr\u043evider.example/v1",
    "https:/attacker.example/v1",
    "https:///attacker.example/v1",
    "//attacker.example/v1",
]
"""Addresses that two readers could read differently: nobody has to."""


def tree_at(base_url, *, model="chat-default", keys=None):
    return chat_tree(**{model: chat_model(upstream(base_url=base_url, keys=keys))})


def new_key(key_id="k1"):
    return sealed_key(key_id=key_id, base_url=HERE)


@pytest.fixture(params=[new_key, older_key], ids=["sealed for its origin", "sealed for none"])
def keys(request):
    """The keys of the configuration in force, of either format."""
    keys = (request.param(key_id="k1"), request.param(key_id="k2"))
    published(tree_at(HERE, keys=keys))
    return keys


def refused(config, revisions=1):
    """Return the faults of what is not published; a dry run finds the same."""
    with pytest.raises(tree.InvalidTree) as refusal:
        publishing.publish(config, note="", by="tester", at=NOON)
    with pytest.raises(tree.InvalidTree) as rehearsed:
        seeding.import_tree(
            config, mode="reset", dry_run=True, by="tester", at=NOON, note="rehearsed"
        )
    assert rehearsed.value.details == refusal.value.details
    assert RouterRevision.objects.count() == revisions
    return refusal.value.details


def put_in_force(config):
    """Make a revision as only somebody with the database's password can."""
    number = RouterRevision.objects.count() + 1
    with transaction.atomic():
        RouterRevision.objects.create(
            number=number, tree=tree.dump(config), published_by="nobody", published_at=NOON
        )
        announced.announce(publishing.ROUTER.name)


class TestOrigin:
    @pytest.mark.parametrize("base_url", SAME)
    def test_is_the_same_however_it_is_spelled(self, base_url):
        assert origins.of(base_url) == "https://provider.example:443"

    @pytest.mark.parametrize("base_url", OTHERS)
    def test_is_another_where_anything_of_it_differs(self, base_url):
        assert origins.of(base_url) != "https://provider.example:443"

    @pytest.mark.parametrize("base_url", UNREADABLE)
    def test_there_is_none_where_it_could_be_read_in_two_ways(self, base_url):
        with pytest.raises(tree.InvalidTree):
            tree.parse(tree.dump(tree_at(HERE)) | {"llm": _models(base_url)})

    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("ws://h/x", "ws://h:80"),
            ("wss://h/x", "wss://h:443"),
            ("http://[::1]/", "http://[::1]:80"),
        ],
    )
    def test_has_its_port_spelled_out(self, url, origin):
        assert origins.of(url) == origin

    @given(
        st.from_regex(r"https?://[!-~]{1,12}(:[0-9]{0,5})?(/[!-~]{0,8})?", fullmatch=True)
        | st.builds("".join, st.lists(st.sampled_from(
            ["http://", "https://", "a.example", "b.example", ":", "@", "/", "\\", "//", "443",
             "%40", "%2e", ".", "[::1]", ";", ",", "xn--a-ecp.ru", "..", "HTTPS://", "A"]),
            max_size=8))
    )  # fmt: skip
    def test_is_where_the_client_connects(self, base_url):
        """One URL, two readers: what a key is checked for is where it goes."""
        try:
            url = fields.url_of("http", "https")(base_url).rstrip("/") + "/chat/completions"
            there, _ = client._target(url)
        except ValueError:
            return
        host = f"[{there.host}]" if ":" in there.host else there.host
        scheme = "https" if there.is_tls else "http"
        assert origins.of(url) == f"{scheme}://{host}:{there.port}"


def _models(base_url):
    keys = [tree.dump(new_key())]
    return {"models": {"chat-default": {"upstreams": [{"baseURL": base_url, "keys": keys}]}}}


class TestPublishing:
    @pytest.mark.parametrize("elsewhere", OTHERS)
    def test_a_key_that_stays_stays_with_its_host(self, keys, elsewhere):
        [fault] = refused(tree_at(elsewhere, keys=keys[:1]))

        assert fault["path"] == "llm.models.chat-default.upstreams.0.baseURL"

    def test_it_says_where_the_key_belongs(self, keys):
        faults = refused(tree_at(ELSEWHERE, keys=keys))

        said = "Enter it again to send it to another host."
        assert {fault["message"] for fault in faults} == {
            f"This key was entered for https://provider.example:443. {said}"
        }

    def test_one_key_that_stays_is_enough(self, keys):
        entered = sealed_key(key_id="k1", base_url=ELSEWHERE)

        refused(tree_at(ELSEWHERE, keys=(entered, keys[1])))

    def test_a_second_upstream_may_not_borrow_it(self, keys):
        borrowed = chat_model(
            upstream(base_url=HERE, keys=keys), upstream(base_url=ELSEWHERE, keys=keys)
        )

        refused(chat_tree(**{"chat-default": borrowed}))

    def test_upstreams_may_not_trade_their_keys(self, keys):
        theirs = (sealed_key(key_id="k1", base_url=ELSEWHERE),)
        here, there = (
            upstream(base_url=url, keys=own) for url, own in ((HERE, keys), (ELSEWHERE, theirs))
        )
        published(chat_tree(**{"chat-default": chat_model(here, there)}))
        traded = [
            here.model_copy(update={"keys": theirs}), there.model_copy(update={"keys": keys})
        ]  # fmt: skip

        refused(chat_tree(**{"chat-default": chat_model(*traded)}), revisions=2)

    def test_upstreams_may_trade_places_and_ids_with_their_keys(self, keys):
        theirs = (sealed_key(key_id="k1", base_url=ELSEWHERE),)
        here = upstream(base_url=HERE, keys=keys, id="x")
        there = upstream(base_url=ELSEWHERE, keys=theirs, id="y")
        published(chat_tree(**{"chat-default": chat_model(here, there)}))

        traded = [there.model_copy(update={"id": "x"}), here.model_copy(update={"id": "y"})]
        assert published(chat_tree(**{"chat-default": chat_model(*traded)})).number == 3

    def test_a_copy_of_the_model_does_not_get_its_keys(self, keys):
        copied = tree_at(HERE, keys=keys).llm.models["chat-default"]

        [*faults] = refused(chat_tree(**{"chat-default": copied, "copy": copied}))
        assert {fault["path"].rpartition(".")[2] for fault in faults} == {"ciphertext"}

    @pytest.mark.parametrize("same", [url for url in SAME if url != HERE])
    def test_another_spelling_of_its_host_is_its_host(self, keys, same):
        assert publishing.publish(tree_at(same, keys=keys), note="", by="tester", at=NOON)

    def test_a_key_that_is_entered_again_may_go_anywhere(self, keys):
        entered = tuple(sealed_key(key_id=key_id, base_url=ELSEWHERE) for key_id in ("k1", "k2"))

        assert publishing.publish(tree_at(ELSEWHERE, keys=entered), note="", by="tester", at=NOON)

    def test_the_way_back_to_an_older_revision_is_open(self, keys):
        entered = (sealed_key(key_id="k1", base_url=ELSEWHERE),)
        publishing.publish(tree_at(ELSEWHERE, keys=entered), note="", by="tester", at=NOON)

        assert publishing.republish(1, note="back", by="tester", at=NOON)
        assert rows.read().llm.models["chat-default"].upstreams[0].base_url == HERE

    def test_a_revision_that_was_slipped_in_is_no_way(self, keys):
        """Somebody with the database's password moves a key, and has it published again."""
        put_in_force(tree_at(ELSEWHERE, keys=keys))
        put_in_force(tree_at(HERE, keys=keys))

        with pytest.raises(tree.InvalidTree, match="entered for"):
            publishing.republish(2, note="again", by="tester", at=NOON)


class TestImport:
    """`seed-router-config --file`, with an export that somebody edited by hand."""

    @pytest.fixture
    def edited(self, tmp_path):
        file = tmp_path / "export.json"

        def write(config):
            file.write_bytes(orjson.dumps(config))
            return str(file)

        return write

    def export(self):
        out = StringIO()
        call_command("export-router-config", "--with-ciphertexts", stdout=out, stderr=StringIO())
        return orjson.loads(out.getvalue())

    def imported(self, file, *more):
        out = StringIO()
        call_command("seed-router-config", "--file", file, *more, stdout=out, stderr=StringIO())

    def upstream_of(self, config):
        return config["llm"]["models"]["chat-default"]["upstreams"][0]

    @pytest.mark.parametrize("more", [(), ("--dry-run",), ("--reset",)])
    def test_an_address_that_was_edited_is_refused(self, keys, edited, more):
        config = self.export()
        self.upstream_of(config)["baseURL"] = ELSEWHERE

        with pytest.raises(CommandError, match=BELONGS):
            self.imported(edited(config), *more)

    def test_also_when_the_key_is_no_longer_in_force(self, keys, edited):
        config = self.export()
        published(chat_tree("another"))
        self.upstream_of(config)["baseURL"] = ELSEWHERE

        with pytest.raises(CommandError, match=BELONGS):
            self.imported(edited(config))

    def test_an_origin_that_was_edited_in_the_seal_does_not_open(self, edited):
        published(tree_at(HERE, keys=(new_key(),)))
        config = self.export()
        place = self.upstream_of(config)
        parts = place["keys"][0]["ciphertext"].split(".")
        forged = base64.urlsafe_b64encode(origins.of(ELSEWHERE).encode()).rstrip(b"=").decode()
        place["keys"][0]["ciphertext"] = ".".join([*parts[:5], forged, parts[6]])
        place["baseURL"] = ELSEWHERE

        with pytest.raises(CommandError, match="belongs to another place"):
            self.imported(edited(config))

    def test_a_server_that_never_saw_the_key_refuses_it_elsewhere_too(self, edited):
        """The seal says where it belongs, so that its history need not be known."""
        config = tree.dump(tree_at(ELSEWHERE, keys=(new_key(),)))

        with pytest.raises(CommandError, match=BELONGS):
            self.imported(edited(config))
        assert not RouterRevision.objects.exists()

    def test_an_older_key_belongs_where_it_is_published_first(self, edited):
        keys = (older_key(),)
        self.imported(edited(tree.dump(tree_at(HERE, keys=keys))))
        published(chat_tree("another"))
        self.imported(edited(tree.dump(chat_tree("another"))), "--reset")

        with pytest.raises(CommandError, match=BELONGS):
            self.imported(edited(tree.dump(tree_at(ELSEWHERE, keys=keys))))
        self.imported(edited(tree.dump(tree_at(HERE, keys=keys))))

    def test_what_was_exported_is_in_force_already(self, keys, edited):
        self.imported(edited(self.export()))

        assert RouterRevision.objects.count() == 1


class TestSeeding:
    def seed(self, *chosen, **fields):
        body = orjson.dumps({"slices": chosen or [chat(**fields)]})
        return seeding.seed(requests.parse(body), by="tester", at=NOON)

    def refused(self, *chosen, **fields):
        with pytest.raises(requests.InvalidSeed) as refusal:
            self.seed(*chosen, **fields)
        return [fault["path"] for fault in refusal.value.details]

    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "another-id"}])
    @pytest.mark.parametrize("elsewhere", [url for url in OTHERS if ":0/" not in url])
    def test_a_key_that_is_kept_stays_with_its_host_also_under_another_id(self, more, elsewhere):
        self.seed(baseURL=HERE)

        assert self.refused(key=None, baseURL=elsewhere, **more) == ["slices.0.plaintextKey"]
        assert publishing.current_tree().llm.models["chat-default"].upstreams[0].base_url == HERE

    def test_a_key_that_is_given_may_go_anywhere(self):
        self.seed(baseURL=HERE)

        assert self.seed(baseURL=ELSEWHERE, key="sk-another").changed == ["LLM_ROUTER_CONFIG"]

    def test_the_same_key_may_too_if_it_is_given_again(self):
        self.seed(baseURL=HERE)

        assert self.seed(baseURL=ELSEWHERE).changed == ["LLM_ROUTER_CONFIG"]

    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "another-id"}])
    def test_a_speech_model_that_moves_to_another_region_needs_its_key_again(self, more):
        self.seed(azure())

        assert self.refused(azure(key=None, region="westus", **more)) == ["slices.0.plaintextKey"]
        assert self.seed(azure(region="westus")).changed

    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "another-id"}])
    @pytest.mark.parametrize(
        "url", ["wss://unspeech:5933/stream", "ws://unspeech:80/stream", "ws://attacker/stream"]
    )
    def test_a_streaming_socket_that_moves_needs_its_key_again(self, url, more):
        self.seed(unspeech())

        moved = unspeech(key=None, upstreamURL=url, **more)
        assert self.refused(moved) == ["slices.0.streaming.plaintextKey"]

    def test_a_socket_s_key_is_sealed_for_its_host_under_any_id(self):
        self.seed(unspeech(upstreamURL="wss://speech.example/stream"))
        self.seed(unspeech(key=None, upstreamURL="wss://speech.example:443/v2", keyEntryId="new"))

        [key] = UNSPEECH_UPSTREAM.read().streaming.keys
        assert (key.id, sealing.origin_of(key.ciphertext)) == ("new", "wss://speech.example:443")

    def test_a_setting_keeps_no_key_of_another_socket(self):
        """Whoever writes the setting otherwise than by a slice does not get around it."""
        self.seed(unspeech())
        value = tree.dump(UNSPEECH_UPSTREAM.read())
        value["streaming"]["baseURL"] = "ws://attacker.example/stream"

        with pytest.raises(InvalidRequest, match="was entered for ws://unspeech:5933"):
            operator_options.put(UNSPEECH_UPSTREAM.name, value, by="tester", at=NOON)


class TestOperatorsAPI:
    """A reset may keep a key of what it replaces: the one way to take it somewhere else."""

    @pytest.fixture
    def operator(self, client, settings):
        settings.ADMIN_EMAILS = [EMAIL]
        return Publisher(client)

    @pytest.fixture(params=[new_key, older_key], ids=["sealed for its origin", "sealed for none"])
    def two(self, request):
        """A model with a provider and, beside it, a host of somebody else's."""
        theirs = sealed_key(key_id="theirs", secret="sk-theirs", base_url=ELSEWHERE)
        here = upstream(base_url=HERE, keys=[request.param(key_id="k1")])
        there = upstream(base_url=ELSEWHERE, keys=[theirs])
        published(chat_tree(**{"chat-default": chat_model(here, there)}))

    def kept(self, operator, base_url, **fields):
        return operator.seed(chat(key=None, baseURL=base_url, **fields), mode="reset")

    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "k1"}, {"keyEntryId": "renamed"}])
    @pytest.mark.parametrize("dry_run", [True, False])
    def test_a_reset_takes_no_key_to_another_upstream_s_host(self, operator, two, more, dry_run):
        body = {"slices": [chat(key=None, baseURL=ELSEWHERE, existingKeyEntryId="k1", **more)]}

        answer = operator.post({**body, "mode": "reset", "dryRun": dry_run})

        assert answer.status_code == 400
        error = answer.json()
        assert "This key was entered for https://provider.example:443" in error["message"]
        assert [fault["path"] for fault in error["details"]] == ["slices.0.plaintextKey"]
        assert RouterRevision.objects.count() == 1

    @pytest.mark.parametrize("mode", ["merge", "reset"])
    @pytest.mark.parametrize("more", [{}, {"keyEntryId": "renamed"}])
    def test_neither_mode_takes_a_key_elsewhere(self, operator, mode, more):
        operator.seed(chat(baseURL=HERE, keyEntryId="k1"))

        moved = chat(key=None, baseURL=ELSEWHERE, existingKeyEntryId="k1", **more)
        assert operator.seed(moved, mode=mode).status_code == 400
        assert RouterRevision.objects.count() == 1

    @pytest.mark.parametrize(("base_url", "kept"), [(HERE, "k1"), (ELSEWHERE, "theirs")])
    def test_a_reset_keeps_the_key_of_the_host_it_names(self, operator, two, base_url, kept):
        assert self.kept(operator, base_url).status_code == 200

        [place] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert (place.base_url, place.keys[0].id) == (base_url, kept)

    def test_of_two_keys_of_one_id_it_keeps_the_one_of_the_host(self, operator):
        places = [
            upstream(base_url=url, keys=[sealed_key(secret=url, base_url=url)])
            for url in (HERE, ELSEWHERE)
        ]
        published(chat_tree(**{"chat-default": chat_model(*places)}))

        assert self.kept(operator, ELSEWHERE, existingKeyEntryId="k1").status_code == 200
        [place] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert place.keys == places[1].keys

    def test_a_key_that_takes_another_id_is_sealed_for_its_host(self, operator, two):
        answer = self.kept(operator, HERE, existingKeyEntryId="k1", keyEntryId="renamed")

        assert answer.status_code == 200
        [place] = publishing.current_tree().llm.models["chat-default"].upstreams
        assert sealing.origin_of(place.keys[0].ciphertext) == "https://provider.example:443"


class TestPages:
    def test_the_field_says_it_and_nothing_is_published(self, keys):
        client = client_of("publish_router_config")

        answer = save(client, change_page(), **{"upstreams-0-base_url": ELSEWHERE})

        assert "This key was entered for https://provider.example:443" in errors_of(answer)
        assert RouterUpstream.objects.get().base_url == HERE

    def test_the_page_of_the_upstream_refuses_it_too(self, keys):
        client = client_of("publish_router_config")
        url = page("routerupstream_change", RouterUpstream.objects.get().pk)

        answer = save(client, url, base_url=ELSEWHERE)

        assert "This key was entered for" in answer.content.decode()
        assert RouterUpstream.objects.get().base_url == HERE
        assert RouterRevision.objects.count() == 1

    def test_an_upstream_moves_with_every_key_entered_again(self, keys):
        client = client_of("publish_router_config")
        url = page("routerupstream_change", RouterUpstream.objects.get().pk)
        entered = {"keys-0-value": CANARY, "keys-1-value": CANARY}

        assert save(client, url, base_url=ELSEWHERE, **entered).status_code == 302
        stored = publishing.current_tree().llm.models["chat-default"].upstreams[0].keys
        origins_sealed = {sealing.origin_of(key.ciphertext) for key in stored}
        assert origins_sealed == {"https://attacker.example:443"}

    @pytest.mark.parametrize("permissions", [("publish_router_config", "probe_upstream")])
    def test_pages_say_what_a_key_was_entered_for(self, keys, permissions):
        client = client_of(*permissions)
        pk = RouterUpstream.objects.get().pk
        pages = [
            change_page(), page("routerupstream_change", pk), page("routerupstream_test", pk)
        ]  # fmt: skip

        for shown in pages:
            assert "https://provider.example:443" in client.get(shown).content.decode()
