"""Any interleaving of sends, edits, deletions and pulls: numbers stay dense, clients converge."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airi_server.kernel import database
from airi_server.kernel.errors import DomainError
from airi_server.kernel.threads import in_thread
from chats import deletion, messages
from chats.messages import NewMessage, NotTheAuthor, Page
from tests.factories import chats as make

USERS = ("ria", "mio")
SLOTS = st.integers(0, 5)
LIMITS = st.sampled_from([1, 2, 3, None])
TEXTS = st.sampled_from(["", "a", "b"])
STEPS = st.one_of(
    st.tuples(
        st.just("send"),
        st.sampled_from(USERS),
        st.dictionaries(SLOTS, TEXTS, min_size=1, max_size=4),
    ),
    st.tuples(st.just("delete"), st.sampled_from(USERS), SLOTS),
    st.tuples(st.just("pull"), st.integers(0, 2), LIMITS),
)


@dataclass
class Said:
    """What the model knows of one message; `text` is None once it is deleted."""

    author: str
    text: str | None
    seq: int


@dataclass
class Model:
    """Ten lines that say what the statements do."""

    said: dict[str, Said] = field(default_factory=dict)
    head: int = 0

    def send(self, caller: str, texts: dict[str, str]) -> bool:
        if any(self.said[i].author != caller for i in texts if i in self.said):
            return False
        known = {i: text for i, text in texts.items() if i in self.said}
        new = {i: text for i, text in texts.items() if i not in self.said}
        edits = {i: t for i, t in known.items() if self.said[i].text not in (None, t)}
        for message_id, text in (new | edits).items():
            self.head += 1
            self.said[message_id] = Said(caller, text, self.head)
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

    async def send(self, caller, texts):
        texts = {self.id_of(slot): text for slot, text in texts.items()}
        before = self.model.head
        accepted = self.model.send(caller, texts)
        new = [NewMessage(i, "user", text) for i, text in texts.items()]
        try:
            sent = await messages.send(caller=caller, chat_id=self.room.pk, messages=new)
        except NotTheAuthor:
            assert not accepted
            return
        assert accepted
        assert (sent.from_seq, sent.to_seq) == (before + 1, self.model.head)
        assert sent.is_new == (self.model.head > before)
        assert sent.seq == max(self.model.said[i].seq for i in texts)

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


@given(steps=st.lists(STEPS, max_size=25))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pages_in_order_from_any_cursor_end_in_the_servers_state(runner, steps):
    runner.run(Play(make.chat("mio")).run(steps))
