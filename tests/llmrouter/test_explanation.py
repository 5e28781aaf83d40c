from __future__ import annotations

import pytest

from llmrouter.configuration import routes
from llmrouter.routing import explanation
from llmrouter.routing.evidence import BreakerState
from llmrouter.routing.failures import Blame
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream

BOTH = {"priority": 1}
DEAD = BreakerState(Blame.DEAD, 2, 12.3, 40.0, "401")


def explained(*upstreams, held=None):
    """Explain model `m`; `held` maps an upstream, or (upstream, key), to a standing."""
    config = chat_tree(m=chat_model(*upstreams))
    scopes = {}
    for each in routes.compile(config, 1).llm["m"].upstreams:
        scopes[each.id] = each.target_id
        scopes |= {(each.id, key.id): key.health_id for key in each.keys}
    told = {scopes[place]: (standing,) for place, standing in (held or {}).items()}
    return explanation.explain(config, 7, "m", told)


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

    def test_says_what_is_held_against_whom_since_when_until_when_and_who_may_pass(self):
        found = explained(
            upstream(model="m", id="x"),
            upstream(model="m", id="y"),
            upstream(model="m", id="z"),
            held={
                ("x", "k1"): DEAD,
                ("y", "k1"): BreakerState(Blame.RATE, -1, 4.2, 1.0, "429"),
                "z": BreakerState(Blame.SICK, -1, 1.5, 9.0, "500"),
            },
        )

        assert [(line.position, line.upstream, line.is_well) for line in found.attempts] == [
            (1, "z", True), (2, "x", False), (3, "y", False),
        ]  # fmt: skip
        assert [line.why for line in found.attempts] == [
            "priority 3; 500: upstream sick for 9 s, last for 2 s more, for whom it has failed",
            f"priority 1; {explanation.sentence(DEAD)}",
            "priority 2; 429: key rate for 1 s, last for 5 s more; it has failed one caller",
        ]
        assert explanation.sentence(DEAD) == (
            "401: key dead for 40 s, tried again in 13 s; last, and not for whom it has failed"
        )

    def test_what_is_due_to_be_tried_again_stands_in_its_place(self):
        open_again = BreakerState(Blame.SICK, 0, 0.0, 40.0, "500")
        found = explained(
            upstream(model="m", id="x"), upstream(model="m", id="y"), held={"x": open_again}
        )

        assert [line.upstream for line in found.attempts] == ["x", "y"]
        assert "tried again by the next request" in found.attempts[0].why

    def test_what_is_all_there_is_is_tried_all_the_same(self):
        found = explained(
            upstream(model="m", id="x"),
            held={"x": BreakerState(Blame.AWAY, 3, 9.0, 40.0, "connect")},
        )

        assert [(line.position, line.is_well) for line in found.attempts] == [(1, False)]

    def test_says_who_is_disabled(self):
        off = [sealed_key(model="m", disabled=True)]
        found = explained(upstream(model="m", id="x"), upstream(keys=off, override_model="gpt"))

        (line,) = found.skipped
        assert (line.upstream, line.model, line.why) == ("upstream.example", "gpt", "disabled")

    def test_shares_are_by_weight_among_equals(self):
        keys = [sealed_key(model="m"), sealed_key(model="m", key_id="k2")]
        found = explained(
            upstream(keys=keys, id="x", weight=3, **BOTH),
            upstream(model="m", id="y", **BOTH),
            upstream(model="m", id="z"),
        )

        assert found.is_drawn
        assert [line.share for line in found.attempts] == [75, None, 25, None]

    def test_who_is_not_well_leaves_its_share_to_the_others(self):
        found = explained(
            upstream(model="m", id="x", weight=2, **BOTH),
            upstream(model="m", id="y", **BOTH),
            upstream(model="m", id="z", **BOTH),
            held={("x", "k1"): BreakerState(Blame.DEAD, 0, 9.0, 1.0, "401")},
        )

        assert [(line.upstream, line.share) for line in found.attempts] == [
            ("y", 50), ("z", 50), ("x", None),
        ]  # fmt: skip

    def test_names_the_models_there_are(self):
        with pytest.raises(explanation.UnknownModel) as unknown:
            explanation.explain(chat_tree("a", "b"), 1, "c", {})

        assert unknown.value.details == {"requested": "c", "available": ["a", "b"]}
