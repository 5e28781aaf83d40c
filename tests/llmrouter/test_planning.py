from __future__ import annotations

import math
import random
import timeit
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.configuration import routes
from llmrouter.routing import planning
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream


def table_of(*upstreams) -> routes.Table:
    return routes.compile(chat_tree(a=chat_model(*upstreams)), 1)


def keyed(slug, *key_ids, **fields):
    return upstream(id=slug, keys=[sealed_key(key_id=k) for k in key_ids or ("k1",)], **fields)


def plan(table, resting=None, now=100.0, pick=lambda: 0.0) -> planning.Plan:
    return planning.plan(table, "a", resting or {}, now, pick)


def order(made: planning.Plan) -> list[str]:
    return [f"{attempt.upstream.id}/{attempt.key.id}" for attempt in made.attempts]


def health_id(table, slug, key_id="k1"):
    [found] = [
        key.health_id
        for each in table.llm["a"].upstreams
        for key in each.keys
        if (each.id, key.id) == (slug, key_id)
    ]
    return found


class TestPlan:
    def test_tries_every_key_of_an_upstream_before_the_next(self):
        made = plan(table_of(keyed("x", "k1", "k2"), keyed("y")))

        assert order(made) == ["x/k1", "x/k2", "y/k1"]
        assert [a.position for a in made.attempts] == [1, 2, 3]
        assert [(a.upstream_index, a.key_index) for a in made.attempts] == [(0, 0), (0, 1), (1, 0)]
        assert made.skipped == ()

    def test_goes_by_priority_before_position(self):
        assert order(plan(table_of(keyed("x", priority=9), keyed("y", priority=1)))) == [
            "y/k1",
            "x/k1",
        ]

    def test_plans_one_upstream_with_one_key(self):
        [attempt] = plan(table_of(keyed("x"))).attempts

        assert (attempt.position, attempt.upstream_index, attempt.key_index) == (1, 0, 0)
        assert attempt.route.name == "a"

    def test_names_the_models_there_are(self):
        with pytest.raises(planning.UnknownModel) as refused:
            planning.plan(table_of(), "b", {}, 0, random.random)

        assert (refused.value.status, refused.value.message) == (400, "unknown_model")
        assert refused.value.code == "unknown_model"
        assert refused.value.details == {"requested": "b", "available": ["a"]}

    def test_skips_what_rests_and_says_until_when(self):
        table = table_of(keyed("x", "k1", "k2"), keyed("y"))
        made = plan(table, {health_id(table, "x"): 130.0, health_id(table, "y"): math.inf})

        assert order(made) == ["x/k2"]
        assert made.attempts[0].position == 1
        assert [(s.upstream.id, s.key.id, s.until) for s in made.skipped] == [
            ("x", "k1", 130.0),
            ("y", "k1", math.inf),
        ]
        assert made.skipped[0].why(100) == "rests for another 30 s"
        assert "operator" in made.skipped[1].why(100)

    def test_tries_a_key_again_the_moment_its_rest_is_over(self):
        table = table_of(keyed("x"))

        assert order(plan(table, {health_id(table, "x"): 100.0})) == ["x/k1"]

    def test_has_no_attempt_when_everything_rests(self):
        table = table_of(keyed("x"))
        made = plan(table, {health_id(table, "x"): 101.0})

        assert made.attempts == ()
        assert len(made.skipped) == 1

    def test_has_no_attempt_when_every_key_is_disabled(self):
        off = upstream(keys=[sealed_key(disabled=True)])

        assert plan(table_of(off)) == planning.Plan((), ())

    def test_draws_equals_by_weight(self):
        equals = [keyed("x", priority=1, weight=3), keyed("y", priority=1)]
        table = table_of(*equals, keyed("z"))
        draw = random.Random(7).random
        made = [order(plan(table, pick=draw)) for _ in range(4000)]

        assert {first[2] for first in made} == {"z/k1"}
        assert Counter(first[0] for first in made)["x/k1"] / 4000 == pytest.approx(0.75, abs=0.03)

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6),
        st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
    )
    def test_lists_every_upstream_once_and_never_against_its_priority(self, ranks, draws):
        table = table_of(*(keyed(str(n), priority=p, weight=w) for n, (p, w) in enumerate(ranks)))
        draw = iter(draws)
        made = plan(table, pick=lambda: next(draw))

        assert sorted(a.upstream.id for a in made.attempts) == [str(n) for n in range(len(ranks))]
        priorities = [a.upstream.priority for a in made.attempts]
        assert priorities == sorted(priorities)

    def test_costs_a_fraction_of_a_draw_in_the_ordinary_case(self):
        ordinary = table_of(keyed("x"))
        drawn = table_of(keyed("x", priority=1, weight=1), keyed("y", priority=1, weight=2))

        def cost(table):
            once = partial(planning.plan, table, "a", {}, 1.0, random.random)
            return min(timeit.timeit(once, number=500) for _ in range(20))

        assert cost(ordinary) < cost(drawn) / 2
