"""Whether a model is served, since when and why not: one answer, and the same on every page."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.urls import reverse
from django.utils.html import strip_tags

from airi_server.kernel.ids import uuid7
from airi_server.runtime.options import put
from billing.usage.models import RefusedRequest
from llmrouter import model_health
from llmrouter.configuration import publishing, routes
from llmrouter.configuration.models import RouterModel, RouterUpstream
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from llmrouter.model_health import HealthState
from llmrouter.routing import health
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from tests.airi_server.console import staff
from tests.cache import forget
from tests.factories import billing as make
from tests.factories.llmrouter import (
    chat_model,
    chat_tree,
    published,
    sealed_key,
    upstream,
)
from tests.llmrouter.admin_pages import page

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAID = "Incorrect API key provided: …"
DEAD = BreakerState(Blame.DEAD, 0, 9.0, 60.0, "401", SAID)
BEHIND = BreakerState(Blame.RATE, -1, 9.0, 4.0, "429")


def found(*upstreams, held=None):
    """Return how model `m` is; `held` maps an upstream, or (upstream, key), to a standing."""
    config = chat_tree(m=chat_model(*upstreams, name="m"))
    table = routes.compile(config, 1)
    scopes = {}
    for each in table.llm["m"].upstreams:
        scopes[each.id] = each.target_id
        scopes |= {(each.id, key.id): key.health_id for key in each.keys}
    told = {scopes[place]: (standing,) for place, standing in (held or {}).items()}
    return model_health.of(config, table, "m", told, at=NOW)


def one(name, **fields):
    return upstream(model="m", id=name, **fields)


class TestOf:
    def test_all_is_well(self):
        health = found(one("x"))

        assert (health.state, health.since, health.unwell) == (HealthState.SERVED, None, ())
        assert health.headline == "is served"

    def test_what_the_last_of_its_keys_cannot_do_nobody_can(self):
        health = found(one("x"), held={("x", "k1"): DEAD})

        assert health.state is HealthState.UNSERVED
        assert health.since == NOW - timedelta(seconds=60)
        (way,) = health.unwell
        assert (way.upstream, way.key) == ("x", "k1")
        assert [(held.sentence, held.words) for held in way.held] == [
            (
                "401: key dead for 60 s, tried again in 9 s; last, and not for whom it has failed",
                SAID,
            )
        ]

    def test_is_unserved_since_the_last_way_was_lost(self):
        held = {("x", "k1"): DEAD, "y": BreakerState(Blame.SICK, 1, 0.0, 7_000.0, "500")}

        assert found(one("x"), one("y"), held=held).since == NOW - timedelta(seconds=60)

    def test_is_served_as_long_as_one_way_is_well(self):
        health = found(one("x"), one("y"), held={("x", "k1"): DEAD})

        assert (health.state, health.since) == (HealthState.PARTLY, None)
        assert health.headline == "is served, but not by 1 of its 2 upstreams and keys"
        assert health.has_refused_key

    @pytest.mark.parametrize(
        ("standing", "state"),
        [
            (BreakerState(Blame.DEAD, -1, 5.0, 1.0, "401"), HealthState.UNSERVED),
            (BreakerState(Blame.DEAD, -1, 0.0, 9_000.0, "401"), HealthState.UNSERVED),
            (BreakerState(Blame.AWAY, -1, 0.0, 9_000.0, "connect"), HealthState.UNSERVED),
            (BreakerState(Blame.RATE, -1, 5.0, 1.0, "429"), HealthState.UNSERVED),
            (BreakerState(Blame.RATE, 0, 0.0, 90.0, "429"), HealthState.SERVED),
            (BreakerState(Blame.SICK, 0, 0.0, 90.0, "500"), HealthState.UNSERVED),
            (BreakerState(Blame.SICK, -1, 2.0, 9.0, "500"), HealthState.SERVED),
            (BreakerState(Blame.DOUBT, -1, 2.0, 9.0, "403"), HealthState.SERVED),
        ],
    )
    def test_what_only_one_caller_has_met_or_is_over_keeps_nobody_away(self, standing, state):
        """A key that was refused is not well again because nobody has tried it since."""
        place = "x" if standing.blame in (Blame.SICK, Blame.AWAY) else ("x", "k1")

        assert found(one("x"), held={place: standing}).state is state

    def test_a_disabled_key_is_no_way(self):
        keys = [sealed_key(model="m"), sealed_key(model="m", key_id="k2", disabled=True)]

        health = found(one("x", keys=keys), held={("x", "k1"): DEAD})

        assert health.state is HealthState.UNSERVED
        assert [way.is_disabled for way in health.ways] == [False, True]

    def test_a_key_that_cannot_be_opened_is_not_well_though_nobody_has_failed(self):
        health = found(one("x", keys=[sealed_key(model="other")]))

        assert (health.state, health.since) == (HealthState.UNSERVED, None)
        assert "does not open" in health.unwell[0].held[0].sentence

    def test_one_that_was_entered_for_another_host_neither(self):
        elsewhere = sealed_key(model="m", base_url="https://elsewhere.example/v1")

        health = found(one("x", keys=[elsewhere]), one("y"))

        assert "another host" in health.unwell[0].held[0].sentence
        assert health.has_refused_key


@pytest.mark.django_db
class TestCurrent:
    def test_nothing_is_published(self):
        assert model_health.current(at=NOW).models == {}

    def test_every_key_is_disabled_since_the_revision_that_did_it(self):
        off = sealed_key(model="a", disabled=True)
        published(chat_tree("a", "b"), at=NOW - timedelta(days=3))
        for days, note in ((2, "b"), (1, "c")):
            config = chat_tree("b", note, a=chat_model(upstream(keys=[off])))
            published(config, at=NOW - timedelta(days=days))

        health = model_health.current(at=NOW).models["a"]

        assert health.headline == "cannot be served: every key is disabled"
        assert health.since == NOW - timedelta(days=2)

    def test_without_redis_it_is_what_this_process_knows(self, settings):
        settings.CACHES = {
            "default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        }
        published(chat_tree("a"))

        router = model_health.current(at=NOW)

        assert not router.is_whole
        assert router.models["a"].state is HealthState.SERVED


@pytest.fixture
def dead(monkeypatch):
    """The only key of model `a` is dead."""
    published(chat_tree("a", "b"))
    put(DEFAULT_CHAT_MODEL.name, "b", by="tester", at=NOW)
    key = publishing.current_table().llm["a"].upstreams[0].keys[0]
    monkeypatch.setattr(health, "read_standings", lambda _revision: {key.health_id: (DEAD,)})
    forget()
    yield
    forget()


def pages():
    """Return every page that speaks of the health of a model, by its name."""
    model = RouterModel.objects.get(name="a")
    row = RouterUpstream.objects.get(model=model)
    make.make_account(100, "mio")
    ticket = make.ticket("mio", make.price(), model="a")
    make.open_one(ticket, 40)
    refused = RefusedRequest.objects.create(
        id=uuid7(), user_id="mio", api_key_id="k", model="a", kind="chat", status=503,
        code="SERVICE_UNAVAILABLE", message="no", at=NOW,
    )  # fmt: skip
    return {
        "refusal": reverse("admin:billing_refusedrequest_change", args=[refused.pk]),
        "start": reverse("admin:index"),
        "list": page("routermodel_changelist"),
        "model": page("routermodel_change", model.pk),
        "upstream": page("routerupstream_change", row.pk),
        "test": page("routerupstream_test", row.pk),
        "plan": f"{page('plan')}?model=a",
        "request": reverse("admin:billing_llmrequestlog_change", args=[ticket.id]),
    }


@pytest.mark.django_db
def test_every_page_that_speaks_of_it_says_the_same(client, dead):
    staff(client, is_superuser=True)
    said = {}

    for name, url in pages().items():
        text = client.get(url).content.decode()
        parts = re.findall(
            r'<div class="console-health" data-state="unserved">.*?</div>', text, re.DOTALL
        )
        said[name] = {" ".join(unescape(strip_tags(part)).split()) for part in parts}

    (sentence,) = said["start"]
    assert {name: found for name, found in said.items() if found != {sentence}} == {}
    assert sentence.startswith("✕ a cannot be served since ")
    assert sentence.endswith(
        "upstream.example, key k1: 401: key dead for 60 s, tried again in 9 s; last, and not for "
        f"whom it has failed. The provider says: {SAID}"
    )
