"""Any interleaving of sends, edits, late retries, deletions and pulls.

Numbers stay dense, clients converge, and what was edited does not come back by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airi_server.kernel import database
from airi_server.kernel.errors import DomainError
from airi_server.kernel.threads import in_thread
from chats import deletion, messages
from chats.messages import MessageDraft, NotTheAuthor, Page
from chats.sockets.knowledge import Knowledge
from tests.factories import chats as make

USERS = ("ria", "mio")
SOCKETS = st.integers(0, 2)
"""Which socket of the user: each knows only what it has sent and pulled itself."""
SLOTS = st.integers(0, 5)
LIMITS = st.sampled_from([1, 2, 3, None])
TEXTS = st.sampled_from(["", "a", "b"])
STEPS = st.one_of(
    st.tuples(
        st.just("send"),
        st.sampled_from(USERS),
        SOCKETS,
        st.dictionaries(SLOTS, TEXTS, min_size=1, max_size=4),
    ),
    st.tuples(st.just("retry_late"), st.integers(0, 30)),
    st.tuples(st.just("delete"), st.sampled_from(USERS), SLOTS),
    st.tuples(st.just("pull"), st.integers(0, 2), LIMITS),
    st.tuples(st.just("look"), st.sampled_from(USERS), SOCKETS),
)


@dataclass
class Said:
    """What the model knows of one message; `text` is None once it is deleted."""

    author: str
    text: str | None
    seq: int
    past: set[str] = field(default_factory=set)

    def is_late(self, text: str, known: set[int]) -> bool:
        return text in self.past and self.seq not in known


@dataclass
class Model:
    """A dozen lines that say what the statements do."""

    said: dict[str, Said] = field(default_factory=dict)
    head: int = 0

    def send(self, caller: str, texts: dict[str, str], known: set[int]) -> bool:
        """Do it if `caller` may; `known` are the numbers that their socket has been sent."""
        if any(self.said[i].author != caller for i in texts if i in self.said):
            return False
        there = {i: text for i, text in texts.items() if i in self.said}
        new = {i: text for i, text in texts.items() if i not in self.said}
        edits = {i: t for i, t in there.items() if self.said[i].text not in (None, t)}
        edits = {i: t for i, t in edits.items() if not self.said[i].is_late(t, known)}
        for message_id, text in (new | edits).items():
            self.head += 1
            said = self.said.get(message_id)
            past = {*said.past, said.text or ""} - {text} if said else set()
            self.said[message_id] = Said(caller, text, self.head, past)
        return True

    def delete(self, message_id: str) -> None:
        if self.said[message_id].text is not None:
            self.head += 1
            self.said[message_id].text, self.said[message_id].seq = None, self.head

    def live(self) -> dict[str, tuple[int, str]]:
        return {i: (one.seq, one.text) for i, one in self.said.items() if one.text is not None}


@dataclass
class Client:
    """What somebody knows who applies pages in order."""

    known: dict[str, tuple[int, str]] = field(default_factory=dict)
    cursor: int = 0

    def apply(self, page: Page) -> None:
        self.known |= {row.id: (row.seq, row.content) for row in page.messages}
        for gone in page.deleted:
            self.known.pop(gone.id, None)
        self.cursor = page.seq


class Play:
    """One chat, the model of it, clients, and every state the chat has been in."""

    def __init__(self, room):
        self.room = room
        self.model = Model()
        self.clients = [Client(), Client(), Client()]
        self.past = [Client()]
        self.sockets = {(user, number): Knowledge() for user in USERS for number in range(3)}
        self.sent = []

    def id_of(self, slot):
        return f"{self.room.pk}-{slot}"

    async def run(self, steps):
        for verb, *given_ in steps:
            await getattr(self, verb)(*given_)
            self.past.append(Client(self.model.live(), self.model.head))
        rows = await in_thread(make.rows)(self.room)
        assert [(seq, text) for seq, _, text in rows] == sorted(
            (one.seq, one.text or "") for one in self.model.said.values()
        )
        for client in [*self.clients, *self.past]:
            while client.cursor < self.model.head:
                before = client.cursor
                await self.catch_up(client, 2)
                assert client.cursor > before
            assert client.known == self.model.live()

    async def send(self, caller, number, texts):
        """Send from a socket, which learns what it is told."""
        texts = {self.id_of(slot): text for slot, text in texts.items()}
        knowledge = self.sockets[caller, number]
        before = self.model.head
        known = {n for low, high in knowledge.of("it") for n in range(low, high + 1)}
        accepted = self.model.send(caller, texts, known)
        try:
            sent = await self.call(caller, texts, knowledge.of("it"))
        except NotTheAuthor:
            assert not accepted
            return
        assert accepted
        self.sent.append((caller, texts))
        assert (sent.from_seq, sent.to_seq) == (before + 1, self.model.head)
        assert sent.is_new == (self.model.head > before)
        assert sent.seq == max(self.model.said[i].seq for i in texts)
        if sent.seen is not None:
            knowledge.learn("it", *sent.seen)
            for seq in range(sent.seen[0], sent.seen[1] + 1):
                (stands,) = (i for i, one in self.model.said.items() if one.seq == seq)
                assert self.model.said[stands].text in (None, texts[stands])

    async def retry_late(self, place):
        """Whatever was sent before, sent again by a device that was away, changes nothing."""
        if not self.sent:
            return
        caller, texts = self.sent[place % len(self.sent)]

        sent = await self.call(caller, texts, [])

        assert not sent.is_new
        assert sent.seq == max(self.model.said[i].seq for i in texts)

    async def call(self, caller, texts, known):
        new = [MessageDraft(i, "user", text) for i, text in texts.items()]
        return await messages.send(caller=caller, chat_id=self.room.pk, messages=new, known=known)

    async def look(self, caller, number):
        self.sockets[caller, number].learn("it", 1, self.model.head)

    async def delete(self, caller, slot):
        message_id = self.id_of(slot)
        said = self.model.said.get(message_id)
        # Ria owns the chat.
        may = said is not None and caller in (said.author, "ria")
        try:
            await in_thread(deletion.delete_message)(
                caller=caller, chat_id=self.room.pk, message_id=message_id, at=make.NOW
            )
        except DomainError:
            assert not may
            return
        assert may
        self.model.delete(message_id)

    async def pull(self, number, limit):
        await self.catch_up(self.clients[number], limit)

    async def catch_up(self, client, limit):
        page = await messages.pull(
            caller="mio", chat_id=self.room.pk, after_seq=client.cursor, limit=limit
        )
        assert client.cursor <= page.seq <= self.model.head
        client.apply(page)


@pytest.fixture
def runner(transactional_db):
    with asyncio.Runner() as made:
        yield made
        made.run(database.close())


ONLY_WHAT_CAME_AFTER = [
    ("send", "ria", 0, {0: "a"}), ("send", "ria", 0, {0: "b"}), ("send", "ria", 1, {1: "a"}),
    ("send", "ria", 1, {0: "a"}), ("look", "ria", 1), ("send", "ria", 1, {0: "a"}),
]  # fmt: skip


@example(steps=ONLY_WHAT_CAME_AFTER)
@given(steps=st.lists(STEPS, max_size=25))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pages_in_order_from_any_cursor_end_in_the_servers_state(runner, steps):
    runner.run(Play(make.chat("mio")).run(steps))
