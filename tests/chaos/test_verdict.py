"""The judge of a run sees what was planted: a loss, a double, a hole, a leak."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.chat import verdict
from tests.chaos.chat.replica import Replica
from tests.chaos.chat.verdict import Absence, Said
from tests.chaos.chat.witness import Truth

ROOM = "room"


def message(id_: str, seq: int, content: str = "hi") -> dict[str, Any]:
    return {
        "id": id_, "seq": seq, "senderId": "ria", "role": "user", "content": content,
        "createdAt": 1, "updatedAt": 1,
    }  # fmt: skip


def page(
    *messages: dict[str, Any], deleted: tuple[dict[str, Any], ...] = (), seq: int = 3
) -> dict[str, Any]:
    return {"messages": list(messages), "deleted": list(deleted), "seq": seq}


WHOLE = page(message("a", 1), message("b", 2), deleted=({"id": "c", "seq": 3},))


def replica(*pages: dict[str, Any]) -> Replica:
    made = Replica()
    for each in pages:
        made.take_page(each, after=0)
    return made


@pytest.fixture
def truth():
    """Two messages and a tombstone, which was message number 1 before it was deleted."""
    made = Truth(heads={ROOM: 3})
    made.rows[ROOM] = dict(replica(WHOLE).rows)
    made.numbers[ROOM] = [1, 2, 3]
    return made


def judged(known: Replica, truth: Truth) -> list[str]:
    return list(verdict.of_replica("phone", ROOM, known, truth))


class TestReplica:
    def test_that_was_forgotten_does_not_take_a_later_page_for_all(self, truth):
        known = replica(page(message("a", 1), seq=1))
        known.forget()

        is_behind = known.take_page(page(message("b", 2), seq=3), after=1)

        assert (is_behind, known.cursor) == (True, 0)
        known.take_page(WHOLE, after=0)
        assert judged(known, truth) == []

    def test_that_has_everything_is_in_order(self, truth):
        assert judged(replica(WHOLE), truth) == []

    def test_that_lost_a_message_is_seen(self, truth):
        known = replica(WHOLE)
        del known.rows["b"]

        assert judged(known, truth) == ["phone in room: b is missing"]

    def test_that_has_a_message_twice_is_seen(self, truth):
        known = replica(page(message("b-again", 2)), WHOLE)

        assert judged(known, truth) == [
            "phone in room: b-again is nowhere else",
            "phone in room: has 2 messages with the number 2",
        ]

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            (message("b", 2, "ho"), "b is ('ria', 'user', 'ho', 1, 1)"),
            (message("b", 4), "b has the number 4, not 2"),
        ],
    )
    def test_with_another_content_or_order_is_seen(self, truth, changed, said):
        known = replica(page(changed), WHOLE)

        assert said in judged(known, truth)[0]

    def test_that_missed_a_deletion_is_seen(self, truth):
        known = replica(page(message("a", 1), message("b", 2), message("c", 1)))

        assert any("c has the number 1, not 3" in fault for fault in judged(known, truth))

    def test_that_does_not_know_that_it_is_behind_is_seen(self, truth):
        known = replica(WHOLE)
        known.cursor = 4

        assert judged(known, truth) == ["phone in room: is at 4 of 3"]


class TestNumbers:
    def test_in_a_row_are_in_order(self, truth):
        assert list(verdict.of_numbers(truth)) == []

    @pytest.mark.parametrize(
        ("numbers", "said"),
        [
            ([1, 3], "number 2 was given out 0 times"),
            ([1, 2, 2, 3], "number 2 was given out 2 times"),
            ([1, 2, 3, 4], "number 4 is above the head 3"),
        ],
    )
    def test_with_a_hole_or_a_double_are_seen(self, truth, numbers, said):
        truth.numbers[ROOM] = numbers

        assert list(verdict.of_numbers(truth)) == [f"room: {said}"]


class TestMessages:
    @pytest.fixture
    def said(self):
        """What clients know of the three: each was answered, and somebody deleted the last."""
        return {
            "a": Said(ROOM, ["hi"], is_acknowledged=True),
            "b": Said(ROOM, ["ho", "hi"], is_acknowledged=True),
            "c": Said(ROOM, ["hi"], is_acknowledged=True, may_be_deleted=True),
        }

    def test_that_are_all_there_are_in_order(self, truth, said):
        assert list(verdict.of_messages(truth, said)) == []

    def test_that_were_acknowledged_and_lost_are_seen(self, truth, said):
        del truth.rows[ROOM]["a"]

        assert list(verdict.of_messages(truth, said)) == ["room: a was acknowledged and is lost"]

    def test_that_nobody_sent_or_deleted_are_seen(self, truth, said):
        del said["a"]
        said["c"].may_be_deleted = False

        assert list(verdict.of_messages(truth, said)) == [
            "room: nobody has sent a",
            "room: c was deleted by nobody",
        ]

    def test_that_went_back_to_an_older_edit_are_seen_unless_it_was_sent_again(self, truth, said):
        said["b"].contents.reverse()

        assert list(verdict.of_messages(truth, said)) == ["room: b is 'hi', of ['hi', 'ho']"]
        said["b"].is_unsure = True
        assert list(verdict.of_messages(truth, said)) == []


class TestAbsence:
    @pytest.mark.parametrize(("highest", "is_leak"), [(2, False), (3, True)])
    def test_during_which_something_was_told_is_seen(self, truth, highest, is_leak):
        truth.departures[ROOM, "mio"] = [2]
        absence = Absence("phone", ROOM, "mio", highest, departures=1)

        assert bool(list(verdict.of_absence(absence, truth))) is is_leak
