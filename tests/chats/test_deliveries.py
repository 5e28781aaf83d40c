"""Which frames a page becomes, and for whom."""

from __future__ import annotations

import orjson

from chats.fanout import ChatEvent
from chats.messages import LiveMessage, Page, Tombstone
from chats.sockets.deliveries import Pushes, ranges_for, runs

ROOM = "room"


def row(seq: int) -> LiveMessage:
    return LiveMessage(f"m{seq}", ROOM, "ria", "user", "hi", seq, 1, 1)


def event(first: int, last: int, *, origin: str = "", members: tuple[str, ...] = ("ria",)):
    return ChatEvent.of_range(ROOM, first, last, members=members, origin=origin)


def bodies(pushes: Pushes, *ranges: tuple[int, int]) -> list[tuple[int, int, list[int]]]:
    """Return first number, last number and the messages' numbers of each frame."""
    made = list(pushes.of(ranges))
    found = [orjson.loads(push.text)["payload"]["body"] for push in made]
    assert [(b["fromSeq"], b["toSeq"]) for b in found] == [(p.first, p.last) for p in made]
    return [(b["fromSeq"], b["toSeq"], [m["seq"] for m in b["messages"]]) for b in found]


class TestRuns:
    def test_put_neighbors_together(self):
        events = [event(1, 1), event(2, 4), event(5, 5)]

        assert list(runs(events)) == [events]

    def test_end_at_a_gap_and_where_the_members_change(self):
        one, two, three = event(1, 1), event(3, 3), event(4, 4, members=("ria", "mio"))

        assert list(runs([one, two, three])) == [[one], [two], [three]]

    def test_leave_a_sender_what_others_sent(self):
        run = [event(1, 1), event(2, 3, origin="phone"), event(4, 4), event(5, 6)]

        assert ranges_for(run, "phone") == [(1, 1), (4, 6)]
        assert ranges_for([event(1, 2, origin="phone")], "phone") == []


class TestPushes:
    def test_are_one_frame_for_a_range_and_the_same_for_everybody(self):
        pushes = Pushes(ROOM, 1, Page((row(1), row(2), row(3)), 3, ()))

        assert bodies(pushes, (1, 3)) == [(1, 3, [1, 2, 3])]
        assert list(pushes.of([(1, 3)])) == list(pushes.of([(1, 3)]))

    def test_stay_within_the_page(self):
        pushes = Pushes(ROOM, 3, Page((row(3), row(4)), 4, ()))

        assert bodies(pushes, (1, 9)) == [(3, 4, [3, 4])]

    def test_hold_tombstones_and_leave_out_what_has_another_number_now(self):
        pushes = Pushes(ROOM, 1, Page((row(2),), 4, (Tombstone("m1", 3),)))

        ((text, _, _),) = pushes.of([(1, 3)])

        assert orjson.loads(text)["payload"]["body"]["deleted"] == [{"id": "m1", "seq": 3}]
        assert bodies(pushes, (4, 4)) == []
