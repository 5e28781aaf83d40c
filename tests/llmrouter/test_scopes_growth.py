"""How rests grow, what is bounded, and what processes make of each other's words."""

from __future__ import annotations

import timeit

import orjson
import pytest

from llmrouter.routing import evidence, scopes
from llmrouter.routing.breakers import MAX_WITNESSES, REMEMBERED_S, RULES
from llmrouter.routing.evidence import FailedAttempt, name_of
from llmrouter.routing.failures import Blame
from llmrouter.routing.planning import Attempt
from tests.llmrouter.played import FIRST, LAST, LONG_S, REFUSE, Played


@pytest.fixture
def played():
    return Played()


class TestGrowth:
    def rests(self, played, blame, count, *, caller="a"):
        """Return how long a caller rests each time that it comes back and fails."""
        rests = []
        for number in range(count):
            outcome = played.fail(blame, caller, str(number))
            rests.append(outcome.rest_s)
            played.wait(outcome.rest_s + LONG_S)
        return rests

    @pytest.mark.parametrize(
        ("blame", "rests"),
        [
            (Blame.DEAD, [10, 20, 40, 80, 160, 320, 600, 600]),
            (Blame.DOUBT, [0, 0, 5, 20, 80, 300, 300]),
            (Blame.RATE, [5, 5, 5]),
            (Blame.SICK, [0, 0, 2, 4, 8, 16, 32, 60, 60]),
            (Blame.AWAY, [0, 2, 4, 8, 16, 32, 60, 60]),
        ],
    )
    def test_of_a_callers_rest(self, played, blame, rests):
        assert self.rests(played, blame, len(rests)) == pytest.approx(rests)

    @pytest.mark.parametrize(
        ("asked_s", "rest_s"),
        [(None, 5), (30, 30), (0, 1), (-5, 1), (86_400, 600), (1e15, 600)],
    )
    def test_of_a_rest_that_was_asked_for(self, played, asked_s, rest_s):
        assert played.fail(Blame.RATE, wait_s=asked_s).rest_s == rest_s

    def test_of_a_rest_that_was_asked_for_is_the_longest_of_those_under_way_together(self, played):
        rests = [played.fail(Blame.RATE, wait_s=asked, sent=1).rest_s for asked in (20, 60, 1)]

        assert rests == [20, 60, 60]

    def test_of_doubt_is_none_while_somebody_is_served_by_an_older_request(self, played):
        played.open(Blame.DOUBT)
        for number in range(5):
            played.wait(0.1).serve(took=60)
            assert played.fail(Blame.DOUBT, "a", str(number)).rest_s == 0

    def test_is_not_by_requests_that_were_under_way_together(self, played):
        rests = [played.wait(0.01).fail(Blame.DEAD, "a", str(n), sent=1) for n in range(20)]

        assert rests[-1].rest_s == pytest.approx(10 - 0.19)

    def test_of_doubt_waits_until_the_caller_was_free_to_be_served(self, played):
        self.rests(played, Blame.DOUBT, 3)
        played.fail(Blame.DOUBT, "a", "again")
        assert played.wait(5.1).fail(Blame.DOUBT, "a", "early").rest_s == pytest.approx(14.9)

    @pytest.mark.parametrize(
        ("blame", "prober", "level"),
        [
            (Blame.SICK, "new", 1),
            (Blame.SICK, "a", 0),
            (Blame.DOUBT, "new", 1),
            (Blame.DOUBT, "a", 0),
            (Blame.DEAD, "new", 1),
            (Blame.DEAD, "a", 1),
            (Blame.AWAY, "a", 1),
        ],
    )
    def test_of_a_scope_is_by_a_new_callers_failed_probe(self, played, blame, prober, level):
        played.open(blame).wait(2 * RULES[blame].first_s)
        probe = played.try_acquire(prober, has_others=True)
        played.fail(blame, prober, "3", attempt=probe)

        standing = played.standing(blame)
        assert (standing.level, standing.rest_s) == (
            level, RULES[blame].rest_s(level, None),
        )  # fmt: skip

    def test_of_a_scope_is_not_by_others_than_probes(self, played):
        played.open(Blame.SICK)
        before = played.standing(Blame.SICK)
        for number in range(9):
            played.fail(Blame.SICK, f"new{number}", str(number))

        assert played.standing(Blame.SICK) == before

    def test_of_a_dead_key_never_keeps_it_from_a_try_in_ten_minutes(self, played):
        for number in range(12):
            played.fail(Blame.DEAD, "a", str(number))
            played.fail(Blame.DEAD, "b", str(number))
            assert played.rank("a") is REFUSE
            assert isinstance(played.wait(600).try_acquire("a"), Attempt)

    def test_what_nobody_has_tried_for_long_is_forgotten(self, played):
        played.open(Blame.DEAD).wait(10 + REMEMBERED_S + 1).scopes.sweep(played.now)

        assert played.scopes.unwell == set()


class TestBounds:
    def test_of_witnesses_and_of_their_requests(self, played):
        for number in range(500):
            played.fail(Blame.DEAD, f"c{number}", str(number))
        for number in range(500):
            played.fail(Blame.DEAD, "c499", str(number))

        breaker = played.scopes._scopes[played.scope(Blame.DEAD)].breakers[Blame.DEAD]
        assert len(breaker.witnesses) == MAX_WITNESSES
        assert len(breaker.witnesses[name_of("c499")].failures) == 3

    def test_of_scopes_that_only_others_speak_of(self, played, monkeypatch):
        monkeypatch.setattr(scopes, "MAX_SCOPES", 10)
        for number in range(50):
            played.scopes.fail(
                FailedAttempt(f"scope{number}", Blame.DEAD, "c", "1", played.now, played.now)
            )
        assert len(played.scopes._scopes) == 10

        played.wait(REMEMBERED_S + 1).scopes.sweep(played.now)
        assert played.scopes._scopes == {}


class TestInstances:
    def pair(self):
        """Return two processes whose clocks show something else."""
        return Played(50.0), Played(9_000.0)

    def told(self, failed, by, to):
        wire = orjson.dumps(evidence.of_failure(failed, by.now))
        return to.scopes.learn(orjson.loads(wire), to.now)

    def failure(self, played, blame, caller="a", asked="1", **fields):
        return FailedAttempt(
            played.scope(blame), blame, name_of(caller), asked, played.now, played.now - 1, **fields
        )

    @pytest.mark.parametrize("blame", list(Blame))
    def test_hold_together_what_each_has_found(self, blame):
        one, other = self.pair()
        mine = self.failure(one, blame)
        one.scopes.fail(mine)
        assert self.told(mine, one, other) is None
        for each in (one, other):
            each.wait(LONG_S)

        assert other.fail(blame, "b", "2").opens

    def test_know_a_caller_again(self):
        one, other = self.pair()
        self.told(self.failure(one, Blame.RATE, "a", asked_s=40.0, reason="429"), one, other)

        assert other.verdict("a") == (REFUSE, 40, "429")
        assert other.rank("b") is LAST

    def test_answer_who_has_not_heard_of_a_later_success(self):
        one, other = self.pair()
        mine = self.failure(one, Blame.DEAD)
        one.scopes.fail(mine)
        other.serve()
        one.wait(1)
        other.wait(1)

        answer = self.told(mine, one, other)
        assert other.rank("a") is FIRST
        assert one.scopes.learn(answer, one.now) is None
        assert one.rank("a") is FIRST

    def test_are_cleared_by_a_success_elsewhere_as_by_their_own(self):
        one, other = self.pair()
        other.open(Blame.SICK).wait(1)
        cleared = evidence.of_success(other.scope(Blame.SICK), one.now - 0.5, one.now)
        other.scopes.learn(orjson.loads(orjson.dumps(cleared)), other.now)

        assert other.scopes.unwell == set()

    def test_grow_once_by_probes_of_several(self):
        one, other = self.pair()
        other.open(Blame.DEAD).wait(10)
        for number in range(4):
            mine = self.failure(one, Blame.DEAD, f"n{number}", asked="1", is_probe=True)
            self.told(mine, one, other)

        assert other.standing(Blame.DEAD).level == 1

    def test_adopt_what_is_open_until_it_was_to_be_tried(self):
        one, other = self.pair()
        standing = one.open(Blame.SICK).wait(0.5).standing(Blame.SICK)
        other.scopes.adopt(other.scope(Blame.SICK), standing, other.now)

        assert (other.rank(), other.wait(1.4).rank()) == (LAST, LAST)
        assert other.wait(0.2).rank() is FIRST
        other.serve(took=60)
        assert other.scopes.unwell == set()

    def test_adopt_an_order_and_no_callers_own_rest(self):
        one, other = self.pair()
        one.fail(Blame.DEAD)
        for number in range(3):
            one.wait(LONG_S).fail(Blame.DOUBT, "a", str(number))
        one.fail(Blame.DEAD)
        for blame in (Blame.DEAD, Blame.DOUBT):
            other.scopes.adopt(other.scope(blame), one.standing(blame), other.now)

        assert (other.rank("a"), other.wait(20).rank("a")) == (LAST, FIRST)

    def test_adopt_nothing_that_they_know_better(self):
        one, other = self.pair()
        standing = one.open(Blame.DEAD).standing(Blame.DEAD)
        other.serve()
        other.scopes.adopt(other.scope(Blame.DEAD), standing, other.wait(0.1).now)
        assert other.rank() is FIRST

        other.wait(100).fail(Blame.DEAD, "a", wait_s=5)
        before = other.standing(Blame.DEAD)
        other.scopes.adopt(other.scope(Blame.DEAD), standing, other.now)
        assert other.standing(Blame.DEAD) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"blame": "odd"}, {"age": "1"}, {"age": None}, {"age": True}, {"scope": 7},
            {"took": []}, {"caller": "x" * 65}, {"fingerprint": None},
            {"asked": "soon"}, {"reason": 401},
        ],
    )  # fmt: skip
    def test_believe_nothing_that_makes_no_sense(self, played, change):
        facts = {**evidence.of_failure(self.failure(played, Blame.DEAD), played.now), **change}

        with pytest.raises((ValueError, TypeError, KeyError)):
            played.scopes.learn(facts, played.now)
        assert played.scopes.unwell == set()

    def test_believe_durations_within_bounds(self, played):
        facts = evidence.of_failure(self.failure(played, Blame.RATE), played.now)
        played.scopes.learn({**facts, "age": -1e9, "took": 1e99, "asked": 1e99}, played.now)

        assert played.verdict("a").wait_s == 600

    def test_wake_what_an_operator_has_seen_serve(self, played):
        played.open(Blame.SICK)
        scope = played.scope(Blame.SICK)
        played.scopes.learn({"what": "woken", "scope": scope}, played.now)

        assert (played.rank("a"), played.scopes.unwell) == (FIRST, set())


def test_a_success_costs_next_to_nothing(played):
    """Two scopes are told of each answer; a request takes some 600 µs."""
    played.serve()
    once = min(timeit.timeit(played.serve, number=1000) for _ in range(20)) / 1000

    assert once < 10e-6
