from __future__ import annotations

import random
import timeit
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.configuration import routes
from llmrouter.routing import planning
from llmrouter.routing.planning import HealthVerdict, PlannedAs, Rank
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream


def table_of(*upstreams) -> routes.Table:
    return routes.compile(chat_tree(a=chat_model(*upstreams)), 1)


def keyed(slug, *key_ids, **fields):
    return upstream(id=slug, keys=[sealed_key(key_id=k) for k in key_ids or ("k1",)], **fields)


LAST = HealthVerdict(Rank.LAST)
REFUSE = HealthVerdict(Rank.REFUSE, 30.0, "429")


def plan(table, verdicts=None, pick=lambda: 0.0) -> planning.RoutePlan:
    """Plan model `a`; `verdicts` maps "upstream/key" to what health says of it."""

    def ask(upstream, key):
        return verdicts.get(f"{upstream.id}/{key.id}", planning.WELL)

    return planning.plan(table, "a", ask if verdicts else None, pick)


def order(made: planning.RoutePlan) -> list[str]:
    return [f"{attempt.upstream.id}/{attempt.key.id}" for attempt in made.attempts]


class TestPlan:
    def test_tries_every_key_of_an_upstream_before_the_next(self):
        made = plan(table_of(keyed("x", "k1", "k2"), keyed("y")))

        assert order(made) == ["x/k1", "x/k2", "y/k1"]
        assert [a.position for a in made.attempts] == [1, 2, 3]
        assert [(a.upstream_index, a.key_index) for a in made.attempts] == [(0, 0), (0, 1), (1, 0)]
        assert made.refused == ()

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
            planning.plan(table_of(), "b", None, random.random)

        assert (refused.value.status, refused.value.code) == (400, "unknown_model")
        assert refused.value.message == "There is no model 'b'. Available: a."
        assert refused.value.details == {"requested": "b", "available": ["a"]}

    def test_names_no_model_that_the_asker_may_not_use(self):
        with pytest.raises(planning.UnknownModel) as refused:
            planning.plan(table_of(), "b", None, random.random, allowed=frozenset({"b", "c"}))

        assert refused.value.message == "There is no model 'b'. No model is available."
        assert refused.value.details == {"requested": "b", "available": []}

    def test_names_ten_models_and_how_many_more(self):
        names = [f"m{number:02}" for number in range(13)]

        assert planning.listed(names[:10]) == f"Available: {', '.join(names[:10])}."
        said = planning.listed(names)
        assert said == f"Available: {', '.join(names[:10])} and 3 more (/v1/models)."

    def test_repeats_what_was_asked_for_without_control_characters(self):
        refused = planning.UnknownModel("a\n\x1bb" + "x" * 900, [])

        assert refused.message.startswith("There is no model 'a??bxxx")
        assert len(refused.message) < 300

    def test_puts_what_is_not_well_behind_the_others_in_its_own_order(self):
        table = table_of(keyed("x", "k1", "k2"), keyed("y", "k1", "k2"), keyed("z"))
        made = plan(table, {"x/k1": REFUSE, "x/k2": LAST, "y/k1": LAST})

        assert order(made) == ["y/k2", "z/k1", "x/k2", "y/k1", "x/k1"]
        assert [a.position for a in made.attempts] == [1, 2, 3, 4, 5]
        assert [a.place for a in made.attempts] == [PlannedAs.OWN] * 2 + [PlannedAs.BEHIND] * 3
        assert made.refused == ()

    def test_refuses_only_where_nothing_is_well(self):
        table = table_of(keyed("x", "k1", "k2"), keyed("y"))
        made = plan(table, {"x/k1": REFUSE, "x/k2": LAST, "y/k1": REFUSE})

        assert order(made) == ["x/k2"]
        assert (made.attempts[0].position, made.attempts[0].place) == (1, PlannedAs.ONLY)
        assert made.refused == (REFUSE, REFUSE)

    def test_has_no_attempt_when_everything_refuses(self):
        made = plan(table_of(keyed("x")), {"x/k1": REFUSE})

        assert made == planning.RoutePlan((), (REFUSE,))

    def test_a_weighted_route_is_asked_about_in_the_order_it_was_drawn(self):
        equals = [keyed(name, priority=1) for name in "xyz"]
        draws = iter([0.9, 0.0])
        made = plan(table_of(*equals), {"z/k1": LAST}, pick=lambda: next(draws))

        assert order(made) == ["x/k1", "y/k1", "z/k1"]

    def test_has_no_attempt_when_every_key_is_disabled(self):
        off = upstream(keys=[sealed_key(disabled=True)])

        assert plan(table_of(off)) == planning.RoutePlan(())

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
            once = partial(planning.plan, table, "a", None, random.random)
            return min(timeit.timeit(once, number=500) for _ in range(20))

        assert cost(ordinary) < cost(drawn) / 2
