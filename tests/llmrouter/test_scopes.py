"""What failures prove about keys and targets: each rule by itself, by a clock of the test's own."""

from __future__ import annotations

import pytest

from llmrouter.routing.breakers import REMEMBERED_S, RULES
from llmrouter.routing.evidence import BreakerOutcome
from llmrouter.routing.failures import Blame
from llmrouter.routing.planning import Attempt, PlannedAs
from tests.llmrouter.played import FIRST, LAST, LONG_S, REFUSE, Played

BY_REQUEST = [Blame.DEAD, Blame.DOUBT, Blame.RATE, Blame.SICK]
QUIET = [Blame.DOUBT, Blame.SICK]
AT_ONCE = [Blame.DEAD, Blame.RATE, Blame.AWAY]


@pytest.fixture
def played():
    return Played()


class TestOpens:
    @pytest.mark.parametrize("blame", list(Blame))
    def test_by_two_callers_with_two_requests(self, played, blame):
        played.fail(blame, "a", "1")
        outcome = played.wait(LONG_S).fail(blame, "b", "2")

        assert (outcome.opens, played.standing(blame).is_open) == (True, True)

    @pytest.mark.parametrize("blame", BY_REQUEST)
    def test_not_by_one_caller_however_often(self, played, blame):
        for number in range(100):
            assert not played.wait(5).fail(blame, "a", str(number)).opens

    @pytest.mark.parametrize("blame", BY_REQUEST)
    def test_not_by_one_request_whoever_sends_it(self, played, blame):
        for number in range(100):
            assert not played.wait(5).fail(blame, str(number), "1").opens

    def test_by_any_two_failures_where_no_request_causes_them(self, played):
        assert not played.fail(Blame.AWAY).opens
        assert played.wait(0.1).fail(Blame.AWAY).opens

    @pytest.mark.parametrize("blame", list(Blame))
    def test_not_with_a_success_between(self, played, blame):
        played.fail(blame, "a", "1")
        played.wait(1).serve()

        assert not played.wait(LONG_S).fail(blame, "b", "2").opens

    @pytest.mark.parametrize("blame", list(Blame))
    def test_not_by_what_failed_long_ago(self, played, blame):
        played.fail(blame, "a", "1")
        played.wait(REMEMBERED_S + 100).scopes.sweep(played.now)

        assert not played.fail(blame, "b", "2").opens
        assert played.rank() in (FIRST, LAST)

    @pytest.mark.parametrize(
        ("every_s", "quiet_s"), [(0.01, 1.0), (0.5, 5.0), (7.0, 10.0), (100.0, 10.0), (None, 10.0)]
    )
    @pytest.mark.parametrize("blame", QUIET)
    def test_only_while_it_is_quieter_than_usual(self, blame, every_s, quiet_s):
        """Ten times as long as between two successes, at least 1 s and at most 10."""
        for waited, opens in [(quiet_s * 0.98, False), (quiet_s * 1.02, True)]:
            played = Played()
            for _ in range(100 if every_s else 0):
                played.wait(every_s).serve()
            played.wait(0.001).fail(blame, "a", "1")

            assert played.wait(waited).fail(blame, "b", "2").opens is opens

    @pytest.mark.parametrize("blame", QUIET)
    def test_not_while_slow_answers_come_in_that_were_sent_before(self, played, blame):
        """They prove nothing of a key after the failure, and yet somebody is served."""
        for number in range(40):
            played.wait(0.5).serve(took=60)
            assert not played.fail(blame, str(number), str(number)).opens


class TestSuccess:
    @pytest.mark.parametrize(("took", "rank"), [(0.5, FIRST), (1.5, LAST)])
    def test_of_a_key_counts_from_when_it_was_sent(self, played, took, rank):
        played.open(Blame.DEAD).wait(1).serve(took=took)

        assert played.rank() is rank

    def test_of_a_target_counts_from_when_it_began(self, played):
        played.open(Blame.SICK).wait(1).serve(took=60)

        assert (played.rank(), played.scopes.unwell) == (FIRST, set())

    def test_clears_only_what_it_contradicts(self, played):
        played.fail(Blame.DEAD, "a", "1")
        played.wait(2).fail(Blame.DEAD, "b", "1")
        played.wait(1).serve(took=2)

        assert (played.rank("b"), played.rank("a")) == (REFUSE, LAST)
        assert not played.wait(1).fail(Blame.DEAD, "c", "1").opens

    def test_leaves_nothing_behind(self, played):
        played.open(Blame.DEAD)
        played.open(Blame.RATE).wait(1).serve()

        assert played.wait(1).fail(Blame.DEAD) == BreakerOutcome(10, is_first=True, is_told=True)

    def test_says_whether_it_has_cleared_anything(self, played):
        key_id = played.attempt.key.health_id
        assert not played.scopes.succeed(key_id, "a", played.now, played.now)
        played.wait(1).fail(Blame.DEAD)
        assert not played.scopes.succeed(key_id, "a", played.now - 0.5, played.now)
        assert played.scopes.succeed(key_id, "a", played.now, played.now)


class TestOrder:
    @pytest.mark.parametrize("blame", list(Blame))
    def test_the_first_failure_puts_behind_what_no_caller_can_cause(self, played, blame):
        played.fail(blame, "a")

        assert played.rank() is (LAST if blame in AT_ONCE else FIRST)
        assert played.wait(RULES[blame].first_s).rank() is FIRST

    @pytest.mark.parametrize(("blame", "after"), [(Blame.DOUBT, 3), (Blame.SICK, 3)])
    def test_a_caller_alone_goes_elsewhere_after_three_requests(self, played, blame, after):
        ranks = []
        for number in range(after):
            played.wait(LONG_S).fail(blame, "a", str(number))
            ranks.append(played.rank("a"))

        assert [rank is FIRST for rank in ranks] == [True] * (after - 1) + [False]
        assert played.rank() is FIRST

    @pytest.mark.parametrize("blame", QUIET)
    def test_but_not_by_sending_the_same_again(self, played, blame):
        for _ in range(50):
            played.wait(LONG_S).fail(blame, "a", "1")

        assert played.rank("a") is FIRST

    @pytest.mark.parametrize("blame", QUIET)
    def test_nor_while_it_is_served_in_between(self, played, blame):
        for number in range(500):
            played.wait(0.05).fail(blame, "a", str(number))
            if number % 5 == 0:
                played.serve("a")

        assert played.rank("a") is FIRST

    @pytest.mark.parametrize("blame", list(Blame))
    def test_what_is_open_is_behind_until_it_has_rested(self, played, blame):
        played.open(blame)
        assert played.rank() is LAST

        assert played.wait(played.standing(blame).rest_s - 0.01).rank() is LAST
        assert played.wait(0.02).rank() is FIRST

    @pytest.mark.parametrize("blame", list(Blame))
    def test_then_one_probes_who_has_not_failed_there(self, played, blame):
        played.open(blame).wait(RULES[blame].first_s)
        assert played.rank("a") is not FIRST

        probe = played.try_acquire("new", has_others=True)
        assert isinstance(probe, Attempt)
        assert played.try_acquire("newer", has_others=True) is LAST

        played.scopes.give_back(probe)
        assert isinstance(played.try_acquire("newer", has_others=True), Attempt)

    @pytest.mark.parametrize("blame", list(Blame))
    def test_and_anybody_after_as_long_again(self, played, blame):
        played.open(blame).wait(2 * RULES[blame].first_s)

        assert isinstance(played.try_acquire("a", has_others=True), Attempt)

    def test_a_probe_that_is_never_heard_of_lapses(self, played):
        played.open(Blame.SICK).wait(2)
        assert isinstance(played.try_acquire("new", has_others=True), Attempt)

        assert played.wait(29.9).try_acquire("newer", has_others=True) is LAST
        assert isinstance(played.wait(0.2).try_acquire("newer", has_others=True), Attempt)

    def test_who_comes_behind_the_others_is_never_kept(self, played):
        played.open(Blame.DEAD)

        for caller in ("a", "b", "new"):
            assert isinstance(played.try_acquire(caller, place=PlannedAs.BEHIND), Attempt)


class TestRefusal:
    """Where nothing else is left."""

    @pytest.mark.parametrize(
        ("blame", "requests", "rank"),
        [
            (Blame.DEAD, 1, REFUSE),
            (Blame.RATE, 1, REFUSE),
            (Blame.DOUBT, 2, FIRST),
            (Blame.DOUBT, 3, REFUSE),
            (Blame.SICK, 9, LAST),
        ],
    )
    def test_is_for_who_has_failed_by_the_key(self, played, blame, requests, rank):
        for number in range(requests):
            played.wait(LONG_S).fail(blame, "a", str(number))

        assert played.rank("a") is rank
        assert played.rank() in (FIRST, LAST)

    def test_by_doubt_of_one_caller_waits_until_nobody_was_served_for_long(self, played):
        for _ in range(100):
            played.wait(0.1).serve()
        ranks = []
        for number in range(11):
            played.wait(0.9).fail(Blame.DOUBT, "a", str(number))
            ranks.append(played.rank("a"))
        assert (ranks[:3], set(ranks)) == ([FIRST, FIRST, LAST], {FIRST, LAST})

        assert played.wait(2).fail(Blame.DOUBT, "a", "last").rest_s > 0
        assert played.rank("a") is REFUSE

    def test_of_a_target_only_while_it_is_open(self, played):
        for number in range(3):
            played.wait(LONG_S).fail(Blame.SICK, "a", str(number))
        assert played.rank("a") is LAST

        played.fail(Blame.SICK, "b", "another")
        assert isinstance(played.try_acquire("a"), Attempt)
        assert played.try_acquire("a") is REFUSE

    def test_says_for_how_long_and_why(self, played):
        played.fail(Blame.RATE, "a", wait_s=40)

        assert played.wait(8).verdict("a") == (REFUSE, 32, "reason")

    @pytest.mark.parametrize("blame", [Blame.SICK, Blame.AWAY])
    def test_of_an_open_target_lets_some_witness_try_every_two_seconds(self, played, blame):
        played.open(blame)
        breaker = played.scopes._scopes[played.scope(blame)].breakers[blame]
        breaker.open_until = played.now + 100
        for witness in breaker.witnesses.values():
            witness.retry_at = played.now + 100

        tried = []
        for _ in range(80):
            played.wait(0.1)
            tried += [isinstance(played.try_acquire(caller), Attempt) for caller in ("a", "b")]

        assert sum(tried) in (4, 5)

    @pytest.mark.parametrize("blame", [Blame.DEAD, Blame.DOUBT, Blame.RATE])
    def test_of_an_open_key_lets_no_witness_try(self, played, blame):
        for number in range(3):
            played.wait(LONG_S).fail(blame, "a", str(number))
        played.fail(blame, "b", "another")

        assert [played.wait(1).try_acquire("a") for _ in range(4)] == [REFUSE] * 4

    @pytest.mark.parametrize("blame", list(Blame))
    def test_rations_who_has_not_failed(self, played, blame):
        played.open(blame)
        passed = [isinstance(played.try_acquire(f"new{n}"), Attempt) for n in range(20)]
        assert passed == [True] * 4 + [False] * 16
        assert 0 < played.verdict().wait_s <= 1

        played.wait(1)
        passed = [isinstance(played.try_acquire(f"newer{n}"), Attempt) for n in range(9)]
        assert sum(passed) == 1

    @pytest.mark.parametrize("blame", list(Blame))
    def test_rations_nobody_who_was_served_here(self, played, blame):
        played.serve("friend")
        played.wait(LONG_S).open(blame)

        assert all(isinstance(played.try_acquire("friend"), Attempt) for _ in range(50))
        assert played.rank() is LAST  # and what is rationed is all there

    def test_remembers_the_last_32_who_were_served(self, played):
        for number in range(40):
            played.wait(1).serve(str(number))
        played.wait(1).open(Blame.DEAD)
        while isinstance(played.try_acquire(), Attempt):
            pass

        assert [n for n in range(40) if isinstance(played.try_acquire(str(n)), Attempt)] == [
            *range(8, 40)
        ]

    def test_is_for_nobody_where_one_is_at_fault(self, played):
        """Whatever one caller makes a key or an upstream say, all others are served."""
        for number in range(300):
            blame = BY_REQUEST[number % 4]
            played.wait(0.3).fail(blame, "a", str(number), wait_s=600)

            assert isinstance(played.try_acquire(f"new{number}"), Attempt)
