"""What goes when a user leaves for good: every part, in order, and again after a failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from airi_server import user_deletion
from airi_server.user_deletion import HANDLERS, Handler
from billing import account_state
from billing.models import FluxAccount, FluxTransaction, RefusalHour, RefusedRequest
from chats.characters.models import Character
from chats.models import Chat, ChatMessage
from tests import serving_role
from tests.factories import billing, characters, chats

LATER = chats.NOW + timedelta(hours=1)
LATEST = chats.NOW + timedelta(hours=2)


class Broken(Exception):
    """A handler that fails once."""


def noted(calls, name, fails=()):
    """Return a handler that writes down that it was called."""

    def delete(**facts):
        calls.append((name, facts))
        if calls.count((name, facts)) <= len(fails):
            raise Broken

    return delete


class TestHandlers:
    def test_are_those_of_the_contract_in_its_order(self):
        listed = [(handler.priority, handler.name) for handler in HANDLERS]

        assert listed == [
            (20, "flux"), (20, "grants"), (30, "characters"), (30, "chats"), (30, "refusals"),
        ]  # fmt: skip

    def test_run_by_priority_and_then_as_they_are_written(self):
        calls: list[Any] = []
        wanted = [(30, "b"), (10, "c"), (30, "a"), (20, "d")]
        handlers = [Handler(priority, name, noted(calls, name)) for priority, name in wanted]

        user_deletion.delete_user_data(
            user_id="ria", at=LATER, handlers=user_deletion.in_order(*handlers)
        )

        assert [name for name, _ in calls] == ["c", "d", "b", "a"]
        assert {(facts["user_id"], facts["at"]) for _, facts in calls} == {("ria", LATER)}

    def test_of_one_name_keep_the_server_from_starting(self):
        twice = [
            Handler(10, "flux", print),
            Handler(30, "chats", print),
            Handler(30, "flux", print),
        ]

        with pytest.raises(ImproperlyConfigured, match="are called flux"):
            user_deletion.in_order(*twice)

    def test_end_with_the_first_error_and_go_on_the_next_time(self):
        calls: list[Any] = []
        handlers = user_deletion.in_order(
            Handler(10, "a", noted(calls, "a")),
            Handler(20, "b", noted(calls, "b", fails=["once"])),
            Handler(30, "c", noted(calls, "c")),
        )

        with pytest.raises(Broken):
            user_deletion.delete_user_data(user_id="ria", at=LATER, handlers=handlers)
        user_deletion.delete_user_data(user_id="ria", at=LATER, handlers=handlers)

        assert [name for name, _ in calls] == ["a", "b", "a", "b", "c"]


@pytest.fixture
def left_behind(db):
    """Ria and Mio have the same: an account, a private chat with a message, a character.

    What follows is done with the role that serves.
    """
    for user_id in ("ria", "mio"):
        billing.make_account(100, user_id)
        billing.refused(user_id)
        chats.stored(chats.chat(owner=user_id, type="private"), 1, content="words")
        characters.character(owner=user_id)
    with serving_role.worn():
        yield


def state():
    tables = (
        FluxAccount, FluxTransaction, Chat, ChatMessage, Character, RefusedRequest, RefusalHour,
    )  # fmt: skip
    return [list(table.objects.order_by("pk").values_list()) for table in tables]


@pytest.mark.usefixtures("left_behind")
class TestDeletingUserData:
    def test_takes_everything_of_one_user_and_nothing_of_others(self):
        user_deletion.delete_user_data(user_id="ria", at=LATER)

        gone = {
            "ria": [
                FluxAccount.objects.get(pk="ria").deleted_at,
                Chat.objects.get(created_by="ria").deleted_at,
                Character.objects.get(owner_id="ria").deleted_at,
            ],
            "mio": [
                FluxAccount.objects.get(pk="mio").deleted_at,
                Chat.objects.get(created_by="mio").deleted_at,
                Character.objects.get(owner_id="mio").deleted_at,
            ],
        }
        assert gone == {"ria": [LATER] * 3, "mio": [None] * 3}
        assert dict(ChatMessage.objects.values_list("author_id", "content")) == {
            "ria": "",
            "mio": "words",
        }
        for table in (RefusedRequest, RefusalHour):
            assert list(table.objects.values_list("user_id", flat=True)) == ["mio"]

    def test_changes_nothing_the_second_time(self):
        user_deletion.delete_user_data(user_id="ria", at=LATER)
        once = state()

        user_deletion.delete_user_data(user_id="ria", at=LATEST)
        user_deletion.delete_user_data(user_id="nobody", at=LATEST)

        assert state() == once

    def test_keeps_the_balance_and_the_ledger(self):
        before = list(FluxTransaction.objects.order_by("pk").values())

        account_state.close(user_id="ria", at=LATER)

        account = FluxAccount.objects.get(pk="ria")
        assert (account.balance, account.updated_at) == (100, LATER)
        assert list(FluxTransaction.objects.order_by("pk").values()) == before
