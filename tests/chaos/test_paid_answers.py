"""The judge of a run over paid requests sees each answer that does not fit its row."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.chaos.faults import Kind
from tests.chaos.one_call import AT, ESTIMATED, ORPHANED, VOIDED, World, row, told
from tests.chaos.paid import served
from tests.chaos.paid.record import Used


@pytest.fixture
def world():
    return World()


def test_what_went_well_is_in_order(world):
    assert world.judged() == []


def test_price_of_a_guess_at_a_whole_answer_is_at_least_the_flat_one():
    guess = row(usage_source="estimated")

    assert served.price_of(guess, Used(3, 4)) == 50
    assert served.price_of(row(), Used(3, 4)) == 7
    assert served.price_of(row(), Used(0, 0)) == 1
    assert served.price_of(row(), Used(1_001, 9, 500)) == 560
    assert served.price_of(row(), Used(15, 0, 15)) == 2


class TestWholeAnswer:
    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"charged": 559}, "asked for 559"),
            ({"charged": 0, "unbilled": 560}, "it cost nothing"),
            ({"charged": 500, "unbilled": 60}, "60 unbilled, of somebody rich"),
            ({"prompt_tokens": 1_002, "charged": 561}, "which nobody reported"),
            ({"completion_tokens": 10, "charged": 561}, "which nobody reported"),
            ({"usage_source": "counted"}, "its usage is 'counted'"),
            ({**ESTIMATED, "outcome": "completed"}, "was reported, the row has"),
            ({"outcome": "client_gone"}, "it was whole, the row is client_gone"),
            ({"outcome": "server_error"}, "ended by an error of the server"),
            (VOIDED, "1 frames came, the row is voided"),
            (ORPHANED, "orphaned, though nobody killed its instance"),
        ],
    )
    def test_with_another_row_is_seen(self, world, columns, said):
        world.put(**columns)

        assert any(said in fault for fault in world.judged()), world.judged()

    def test_without_a_row_is_seen(self, world):
        world.truth.rows.clear()

        assert any("served 1 times without a row" in fault for fault in world.judged())
        assert any("there is no such row" in fault for fault in world.judged())

    def test_that_says_another_charge_is_seen(self, world):
        world.tell(told(charged=559))

        assert any("it said 559 Flux, the row 560" in fault for fault in world.judged())

    def test_that_is_another_calls_is_seen(self, world):
        world.attempt.call = "call-2"

        assert any("with the text of attempt 1" in fault for fault in world.judged())

    def test_paid_by_the_row_of_another_call_is_seen(self, world):
        world.put(prompt_estimate=101)

        assert any("the row is another call's" in fault for fault in world.judged())
        assert "request row: nobody has asked for it" in world.judged()

    def test_is_excused_by_no_kill_if_it_is_plain(self, world):
        world.put(**ORPHANED)
        world.happens(Kind.INSTANCE_KILLED)

        assert any("it was whole, the row is orphaned" in fault for fault in world.judged())

    def test_of_a_stream_may_be_an_orphans_whose_instance_was_killed(self, world):
        """Its end waits for the debit for 2 s and then leaves."""
        world.tell(told(charged=None), is_stream=True)
        world.put(**ORPHANED)
        assert world.judged() != []

        world.happens(Kind.INSTANCE_KILLED)

        assert world.judged() == []

    def test_may_be_forgotten_by_a_database_that_crashes_before_the_instance_ends(self, world):
        world.truth.rows.clear()
        world.happens(Kind.DATABASE_CRASHED)
        assert world.judged() != []

        world.happens(Kind.INSTANCE_KILLED, at=AT + 5)

        assert world.judged() == []


class TestPartOfAStream:
    @pytest.fixture(autouse=True)
    def part(self, world):
        world.tell(told(is_whole=False, charged=None, frames=3), is_stream=True)
        world.put(**ESTIMATED)

    def test_costs_what_came(self, world):
        assert world.judged() == []

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (VOIDED, "3 frames came, the row is voided"),
            ({"completion_tokens": 2, "charged": 102}, "3 frames came, 2 tokens are charged"),
            ({"completion_tokens": 6, "charged": 106}, "at most 4 tokens were sent"),
            ({"prompt_tokens": 101, "charged": 104}, "at most 4 tokens were sent"),
        ],
    )
    def test_for_less_or_more_is_seen(self, world, columns, said):
        world.put(**{**ESTIMATED, **columns})

        assert any(said in fault for fault in world.judged()), world.judged()

    def test_of_an_orphan_costs_its_checkpoint(self, world):
        world.put(**ORPHANED)
        world.happens(Kind.INSTANCE_KILLED)

        assert world.judged() == []


class TestOrphan:
    def test_of_a_stop_is_excused_only_if_the_database_was_away(self, world):
        world.tell(told(is_whole=False, frames=0))
        world.put(**VOIDED | {"outcome": "orphaned"})
        world.happens(Kind.INSTANCE_STOPPED)
        assert world.judged() == ["call-1: row row: orphaned, though nobody killed its instance"]

        world.happens(Kind.DATABASE_RESTARTED)

        assert world.judged() == []

    def test_of_a_kill_before_it_opened_is_seen(self, world):
        world.tell(told(is_whole=False, frames=0))
        world.put(**VOIDED | {"outcome": "orphaned"})
        world.happens(Kind.INSTANCE_KILLED, at=AT - 30)

        assert len(world.judged()) == 1

    @pytest.mark.parametrize(("instance_id", "faults"), [("one", 1), ("two", 0)])
    def test_of_an_instance_that_lives_on_is_seen(self, world, instance_id, faults):
        world.tell(told(is_whole=False, frames=0), told(request_id="later"), key="k")
        world.put(**VOIDED | {"outcome": "orphaned"})
        world.happens(Kind.INSTANCE_KILLED)
        later = datetime.fromtimestamp(AT + 9, UTC)

        world.put(id="later", instance_id=instance_id, opened_at=later)

        assert sum("orphaned" in fault for fault in world.judged()) == faults
