from __future__ import annotations

import math

import pytest

from llmrouter.configuration import routes
from llmrouter.routing import explanation
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream

NOW = 1000.0
BOTH = {"priority": 1}


def explained(*upstreams, resting=None):
    """Explain model `m`; `resting` maps (upstream, key) to until when and why."""
    config = chat_tree(m=chat_model(*upstreams))
    health_ids = {
        (each.id, key.id): key.health_id
        for each in routes.compile(config, 1).llm["m"].upstreams
        for key in each.keys
    }
    told = {health_ids[place]: rest for place, rest in (resting or {}).items()}
    return explanation.explain(config, 7, "m", told, NOW)


def lines(found):
    return [(line.position, line.upstream, line.key, line.why) for line in found]


class TestExplain:
    def test_numbers_the_attempts_in_their_order(self):
        keys = [sealed_key(model="m"), sealed_key(model="m", key_id="k2")]
        found = explained(
            upstream(model="m", id="x", priority=9), upstream(id="y", keys=keys, priority=2)
        )

        assert lines(found.attempts) == [
            (1, "y", "k1", "priority 2"),
            (2, "y", "k2", "priority 2"),
            (3, "x", "k1", "priority 9"),
        ]
        assert (found.revision, found.skipped, found.is_drawn) == (7, (), False)

    def test_says_who_rests_why_and_how_long(self):
        found = explained(
            upstream(model="m", id="x"),
            upstream(model="m", id="y"),
            upstream(model="m", id="z"),
            resting={("x", "k1"): (math.inf, "401"), ("y", "k1"): (NOW + 4.2, "429")},
        )

        assert lines(found.attempts) == [(1, "z", "k1", "priority 3")]
        assert lines(found.skipped) == [
            (None, "x", "k1", "401: rests until an operator looks at it"),
            (None, "y", "k1", "429: rests for another 5 s"),
        ]

    def test_says_who_is_disabled(self):
        off = [sealed_key(model="m", disabled=True)]
        found = explained(upstream(model="m", id="x"), upstream(keys=off, override_model="gpt"))

        (line,) = found.skipped
        assert (line.upstream, line.model, line.why) == ("upstream.example", "gpt", "disabled")

    def test_a_rest_that_is_over_does_not_count(self):
        found = explained(upstream(model="m", id="x"), resting={("x", "k1"): (NOW, "500")})

        assert len(found.attempts) == 1

    def test_shares_are_by_weight_among_equals(self):
        keys = [sealed_key(model="m"), sealed_key(model="m", key_id="k2")]
        found = explained(
            upstream(keys=keys, id="x", weight=3, **BOTH),
            upstream(model="m", id="y", **BOTH),
            upstream(model="m", id="z"),
        )

        assert found.is_drawn
        assert [line.share for line in found.attempts] == [75, None, 25, None]

    def test_who_rests_leaves_its_share_to_the_others(self):
        found = explained(
            upstream(model="m", id="x", weight=2, **BOTH),
            upstream(model="m", id="y", **BOTH),
            upstream(model="m", id="z", **BOTH),
            resting={("x", "k1"): (math.inf, "401")},
        )

        assert [line.share for line in found.attempts] == [50, 50]

    def test_names_the_models_there_are(self):
        with pytest.raises(explanation.UnknownModel) as unknown:
            explanation.explain(chat_tree("a", "b"), 1, "c", {}, NOW)

        assert unknown.value.details == {"requested": "c", "available": ["a", "b"]}
