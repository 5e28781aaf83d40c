"""On a million messages each list of chats opens at once, whatever it is asked.

Counts only: statements, plans, and pages touched. Nothing here looks at a clock.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from django.test import Client

from chats.models import Chat, ChatMessage
from tests.chats.console import url
from tests.factories import accounts
from tests.perf.million import HEAVY
from tests.perf.talk import LONG
from tests.perf.test_million_rows import cost_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.xdist_group("million"),
    pytest.mark.usefixtures("million"),
]

MAX_STATEMENTS: Final = 12
FEW: Final = 2_500
"""Pages that an answer through an index may touch: a hundred rows, and what each is shown with."""
WALK: Final = 14_000
"""Pages that a walk through one slice may touch, each row of which may be on one of its own."""
LIGHT: Final = "user-77"


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(accounts.user(is_staff=True, is_superuser=True))
    return client


DIRECT: Final[dict[str, list[dict[str, str]]]] = {
    "chat": [
        {}, {"q": "c500"}, {"q": HEAVY}, {"q": LIGHT}, {"q": "user-77@million.example"},
        {"user": LIGHT, "type": "bot"}, {"user": HEAVY, "state": "live"}, {"last": "24h"},
        {"last": "30d", "user": LIGHT}, {"from": "2001-01-01T00:00", "to": "2001-01-02T00:00"},
        {"after": "c50000"}, {"before": "c50000"}, {"user": HEAVY, "after": "c50000"},
    ],
    "chatmessage": [
        {}, {"q": "x500000"}, {"q": LONG}, {"chat": LONG}, {"chat": "c777"},
        {"chat": LONG, "after": "500000"}, {"chat": LONG, "before": "500000"},
        {"chat": LONG, "state": "deleted"}, {"chat": LONG, "user": "user-3"}, {"role": "user"},
    ],
    "character": [
        {}, {"q": "a500"}, {"q": HEAVY}, {"q": LIGHT}, {"user": HEAVY}, {"q": "airi"},
        {"q": "name 501"}, {"last": "24h"}, {"state": "deleted"}, {"user": HEAVY, "last": "7d"},
        {"after": "a50000"}, {"user": HEAVY, "before": "a50000"},
    ],
}  # fmt: skip
WALKS: Final[dict[str, list[dict[str, str]]]] = {
    "chat": [
        {"q": "no such title"}, {"q": "trip 99999"}, {"user": HEAVY, "q": "no such title"},
        {"type": "group"}, {"type": "bot", "state": "deleted"},
        {"user": HEAVY, "to": "2001-01-01T00:00"},
    ],
    "chatmessage": [
        {"chat": LONG, "role": "tool"}, {"chat": LONG, "q": "nobody"},
        {"chat": LONG, "to": "2001-01-01T00:00"},
    ],
    "character": [{"q": "no such name"}, {"user": HEAVY, "q": "no such name"}],
}  # fmt: skip


def cases(of: dict[str, list[dict[str, str]]]) -> list[Any]:
    return [
        pytest.param(model, query, id=f"{model} {query}")
        for model, queries in of.items()
        for query in queries
    ]


@pytest.mark.parametrize(("model", "query"), cases(DIRECT))
def test_a_list_is_answered_by_an_index(root, model, query):
    statements, scanned, buffers = cost_of(root, url(f"{model}_changelist"), query)

    assert (statements <= MAX_STATEMENTS, scanned) == (True, [])
    assert buffers <= FEW


@pytest.mark.parametrize(("model", "query"), cases(WALKS))
def test_a_list_looks_through_no_more_than_a_slice(root, model, query):
    statements, scanned, buffers = cost_of(root, url(f"{model}_changelist"), query)

    assert (statements <= MAX_STATEMENTS, scanned) == (True, [])
    assert buffers <= WALK


@pytest.mark.parametrize(
    ("page", "key"),
    [
        ("chat_change", LONG), ("chat_change", "c777"), ("chatmessage_change", "x500000"),
        ("character_change", "a777"), ("chat_read", LONG),
    ],
)  # fmt: skip
def test_a_page_opens_through_indexes(root, page, key):
    statements, scanned, buffers = cost_of(root, url(page, key), {})

    assert (statements <= 2 * MAX_STATEMENTS, scanned) == (True, [])
    assert buffers <= WALK


def test_what_is_shown_is_what_there_is(root):
    chats = root.get(url("chat_changelist"), {"user": HEAVY}).context["cl"].result_list
    messages = root.get(url("chatmessage_changelist"), {"chat": LONG}).context["cl"].result_list

    newest = Chat.objects.filter(members__user_id=HEAVY).order_by("-created_at", "-id")[:100]
    assert [row.pk for row in chats] == [row.pk for row in newest]
    last = ChatMessage.objects.filter(chat_id=LONG).order_by("-seq")[:100]
    assert [row.pk for row in messages] == [row.pk for row in last]
