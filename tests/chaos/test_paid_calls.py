"""The judge of a run over paid requests sees what was refused, repeated or served wrongly."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from tests.chaos.faults import Kind
from tests.chaos.one_call import AT, MIO, VOIDED, World, refused, told
from tests.chaos.paid import report, served
from tests.chaos.paid.record import Attempt, Shut
from tests.chaos.paid.report import Report


@pytest.fixture
def world():
    return World()


class TestRefusal:
    @pytest.mark.parametrize(
        ("what", "said"),
        [
            (refused(500), "with X"),
            (refused(429), "with X"),
            (refused(401), "nobody had shut them out"),
            (refused(402), "they are rich"),
            (refused(409), "they sent no key"),
        ],
    )
    def test_without_a_reason_is_seen(self, world, what, said):
        world.tell(what)
        world.put(**VOIDED)

        assert any(said in fault for fault in world.judged()), world.judged()

    def test_that_was_paid_for_is_seen(self, world):
        world.tell(refused(503))

        assert any("the row is settled with 560 Flux" in fault for fault in world.judged())

    def test_with_a_reason_is_in_order(self, world):
        world.record.shut.append(Shut("ria", AT - 5, AT - 4, AT + 9, AT + 9))
        world.tell(refused(401))
        world.put(**VOIDED)

        assert world.judged() == []

    def test_that_should_have_come_is_seen(self, world):
        world.record.shut.append(Shut("ria", AT - 20, AT - 19, AT + 9, AT + 9))

        assert any("they were shut out" in fault for fault in world.judged())


class TestRepeats:
    def test_with_one_answer_are_in_order(self, world):
        processed = refused(409, "ALREADY_PROCESSED", requestId="row", fluxCharged=560)
        processed = dataclasses.replace(processed, request_id="another")
        world.tell(told(), told(), processed, key="k")

        assert world.judged() == []

    def test_paid_twice_are_seen_unless_the_database_forgot_the_first(self, world):
        world.record.attempts.append(dataclasses.replace(world.attempt, number=2))
        world.put(id="second")
        world.tell(told(), told(request_id="second"), key="k")

        assert any("paid 2 times" in fault for fault in world.judged())
        assert any("got 2 answers" in fault for fault in world.judged())
        world.happens(Kind.DATABASE_KILLED)
        assert world.judged() == []

    @pytest.mark.parametrize(
        "details",
        [
            {"requestId": "another", "fluxCharged": 560},
            {"requestId": "row", "fluxCharged": 559},
        ],
    )
    def test_told_of_another_charge_are_seen(self, world, details):
        repeated = refused(409, "ALREADY_PROCESSED", **details)
        world.tell(told(), dataclasses.replace(repeated, request_id="second"), key="k")

        assert len(world.judged()) == 1


class TestAttempts:
    def test_beyond_those_of_the_rows_are_seen(self, world):
        world.record.attempts.append(Attempt(2, "call-1", "b", "answered", AT))

        assert world.judged() == ["call-1: 2 attempts at the provider, 1 in 1 rows"]

    def test_replaced_on_a_kept_connection_are_no_rows_affair(self, world):
        world.record.attempts.append(Attempt(2, "call-1", "b", "reset before the first byte", AT))

        assert world.judged() == []

    def test_with_more_rows_than_tries_are_seen(self, world):
        world.put(id="second", **VOIDED)

        assert world.judged() == ["call-1: 2 rows for 1 tries"]

    def test_paid_for_twice_are_seen(self, world):
        world.put(id="second", user_id="mio")

        assert list(served.of_attempts(world.truth)) == [
            "rows row and second paid for the same attempt"
        ]


def test_the_poor_may_leave_something_unbilled(world):
    world.call.person = MIO
    world.put(user_id="mio", charged=0, unbilled=560)
    world.tell(told(charged=0))

    assert world.judged() == []


def test_the_report_tells_what_became_of_a_violated_call(world):
    world.truth.rows.clear()
    world.record.began = AT
    world.happens(Kind.DATABASE_CRASHED)
    found = Report(world.record, world.truth, ["call-1: lost"], 0.0, Counter())

    said = report.told(found, seed=7)

    assert said.startswith("seed 7: 1 faults: 1 PostgreSQL crashed\n")
    assert "0.5-1.5 s: PostgreSQL crashed" in said
    assert "call-1: asked at 0.0-1.0 s, 200 whole, 1 frames, row" in said
    assert "call-1: attempt 1 at a at 0.0 s, answered, 3 frames" in said
    assert said.endswith("1 violations")
