"""Pushes lost, doubled and reordered beside sends, edits, deletions, joins and removals."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accounts.revalidation import Caller
from airi_server.kernel import database
from airi_server.kernel.errors import DomainError
from airi_server.kernel.threads import in_thread
from chats import deletion, fanout, messages, rooms
from chats.messages import MessageDraft, NotTheAuthor
from chats.rooms import Someone
from chats.sockets.deliveries import Deliveries
from chats.sockets.outbox import Outbox, Registry
from tests.chats.test_machine import Model
from tests.factories import chats as make

USERS = ("ria", "ria", "mio", "zoe")
"""Whose sockets there are. Ria owns the chat and stays, Zoe comes and goes."""
SOCKETS = st.integers(0, len(USERS) - 1)
SLOTS = st.integers(0, 5)
TEXTS = st.sampled_from(["", "a", "b"])
PLACES = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(
        st.just("send"), SOCKETS, st.dictionaries(SLOTS, TEXTS, min_size=1, max_size=4)
    ),
    st.tuples(st.just("retry_late"), SOCKETS, PLACES),
    st.tuples(st.just("delete"), SOCKETS, SLOTS),
    st.tuples(st.just("let_in")),
    st.tuples(st.just("put_out")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("receive"), SOCKETS, PLACES),
    st.tuples(st.just("receive_twice"), SOCKETS, PLACES),
    st.tuples(st.just("lose"), SOCKETS, PLACES),
    st.tuples(st.just("pull"), SOCKETS, st.sampled_from([1, 2, None])),
)  # fmt: skip


class Client:
    """What a front end does: the highest number of an id counts, a gap is pulled.

    `on_the_way` are pushes that were written to the socket and that it has not received yet.
    """

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.cursor = 0
        self.known: dict[str, tuple[int, str | None]] = {}
        self.on_the_way: list[dict[str, Any]] = []
        self.written: Counter[int] = Counter()
        self.outbox: list[dict[str, str]] = []
        self.seen: set[int] = set()
        self.socket = Outbox(self._send, lambda: None)
        self.writing = asyncio.get_running_loop().create_task(self.socket.write())

    def receive(self, push: dict[str, Any]) -> None:
        self._apply(push["messages"], push.get("deleted", []))
        if push["fromSeq"] <= self.cursor + 1:
            self.cursor = max(self.cursor, push["toSeq"])

    def catch_up(self, page: dict[str, Any]) -> None:
        self._apply(page["messages"], page["deleted"])
        self.cursor = max(self.cursor, page["seq"])

    def live(self) -> dict[str, tuple[int, str | None]]:
        return {i: one for i, one in self.known.items() if one[1] is not None}

    def _apply(self, rows: list[dict[str, Any]], deleted: list[dict[str, Any]]) -> None:
        for row in [*rows, *deleted]:
            if row["seq"] > self.known.get(row["id"], (0, None))[0]:
                self.known[row["id"]] = (row["seq"], row.get("content"))

    async def _send(self, message: dict[str, Any]) -> None:
        push = orjson.loads(message["text"])["payload"]["body"]
        rows = [*push["messages"], *push.get("deleted", [])]
        assert all(push["fromSeq"] <= row["seq"] <= push["toSeq"] for row in rows)
        self.on_the_way.append(push)
        self.written.update(range(push["fromSeq"], push["toSeq"] + 1))


class Play:
    """One chat, the model of it, and who was to be told of each number."""

    def __init__(self, room) -> None:
        self.room = room
        self.model = Model()
        self.registry = Registry()
        self.deliveries = Deliveries(self.registry)
        # No read begins before `settle`, so that events share one however long a step takes.
        self.deliveries._reads = self.reads = asyncio.Semaphore(0)
        self.clients = [Client(name) for name in USERS]
        self.members = {"ria", "mio"}
        self.audience: dict[int, set[Client]] = {}
        for client in self.clients:
            self.registry.add(client.socket, Caller(client.user_id, "key", ""))

    async def run(self, steps) -> None:
        try:
            for verb, *given_ in steps:
                await getattr(self, verb)(*given_)
            await self.settle()
        finally:
            for client in self.clients:
                client.writing.cancel()
            ended = await asyncio.gather(*(c.writing for c in self.clients), return_exceptions=True)
            assert {type(one) for one in ended} == {asyncio.CancelledError}
        for client in self.clients:
            self.ensure_told_once(client)
            if client.user_id in self.members:
                while client.cursor < self.model.head:
                    before = client.cursor
                    await self.pull_page(client, 2)
                    assert client.cursor > before
                assert client.live() == self.model.live()

    def ensure_told_once(self, client: Client) -> None:
        """Numbers of which no row is left are told to nobody; the others to each once."""
        current = {one.seq for one in self.model.said.values()}
        for seq, audience in self.audience.items():
            expected = int(client in audience)
            told = client.written[seq]
            assert told == expected or (told < expected and seq not in current), (seq, told)

    def tell(self, sent: messages.SendResult, origin: Client | None) -> None:
        if not sent.is_new:
            return
        assert set(sent.members) == self.members
        audience = {c for c in self.clients if c.user_id in self.members and c is not origin}
        for seq in range(sent.from_seq, sent.to_seq + 1):
            self.audience[seq] = audience
        self.deliveries.accept(
            fanout.ChatEvent(
                chat_id=self.room.pk, from_seq=sent.from_seq, to_seq=sent.to_seq,
                members=list(sent.members), origin=origin.socket.id if origin else "",
            )
        )  # fmt: skip

    def id_of(self, slot: int) -> str:
        return f"{self.room.pk}-{slot}"

    async def send(self, number: int, texts: dict[int, str]) -> None:
        client = self.clients[number]
        named = {self.id_of(slot): text for slot, text in texts.items()}
        await self.send_named(client, named)

    async def retry_late(self, number: int, place: int) -> None:
        """What a client has sent before comes once more from it, whatever it has learned since."""
        client = self.clients[number]
        if client.outbox:
            await self.send_named(client, client.outbox[place % len(client.outbox)])

    async def send_named(self, client: Client, named: dict[str, str]) -> None:
        knowledge, known = client.socket.knowledge, client.seen | {*client.written}
        new = [MessageDraft(i, "user", text) for i, text in named.items()]
        try:
            sent = await messages.send(
                caller=client.user_id, chat_id=self.room.pk, messages=new,
                known=knowledge.of(self.room.pk),
            )  # fmt: skip
        except NotTheAuthor:
            return
        except DomainError:
            assert client.user_id not in self.members
            return
        assert client.user_id in self.members
        client.outbox.append(named)
        before = self.model.head
        self.model.send(client.user_id, named, known)
        assert (sent.from_seq, sent.to_seq) == (before + 1, self.model.head)
        if sent.seen is not None:
            knowledge.learn(self.room.pk, *sent.seen)
            client.seen.update(range(sent.seen[0], sent.seen[1] + 1))
        self.tell(sent, client)

    async def delete(self, number: int, slot: int) -> None:
        try:
            sent = await in_thread(deletion.delete_message)(
                caller=self.clients[number].user_id, chat_id=self.room.pk,
                message_id=self.id_of(slot), at=make.NOW,
            )  # fmt: skip
        except DomainError:
            return
        self.model.delete(self.id_of(slot))
        self.tell(sent, None)

    async def let_in(self) -> None:
        await in_thread(rooms.add_member)(
            caller="ria", chat_id=self.room.pk, someone=Someone("user", "zoe"), at=make.NOW
        )
        self.members.add("zoe")

    async def put_out(self) -> None:
        if "zoe" in self.members:
            zoe = await in_thread(make.member)(self.room, "zoe")
            await in_thread(rooms.remove_member)(
                caller="ria", chat_id=self.room.pk, member_id=zoe.pk
            )
            self.members.remove("zoe")

    async def settle(self) -> None:
        """Let everything that was told be read and written."""
        self.reads.release()
        while self.deliveries._tasks:
            await asyncio.gather(*self.deliveries._tasks)
        await self.reads.acquire()
        for client in self.clients:
            while client.socket._queue and not client.writing.done():
                await asyncio.sleep(0)

    async def receive(self, number: int, place: int) -> None:
        if push := self._on_the_way(number, place):
            self.clients[number].receive(push)
            self.clients[number].on_the_way.remove(push)

    async def receive_twice(self, number: int, place: int) -> None:
        if push := self._on_the_way(number, place):
            self.clients[number].receive(push)

    async def lose(self, number: int, place: int) -> None:
        if push := self._on_the_way(number, place):
            self.clients[number].on_the_way.remove(push)

    async def pull(self, number: int, limit: int | None) -> None:
        client = self.clients[number]
        if client.user_id in self.members:
            await self.pull_page(client, limit)

    async def pull_page(self, client: Client, limit: int | None) -> None:
        page = await messages.pull(
            caller=client.user_id, chat_id=self.room.pk, after_seq=client.cursor, limit=limit
        )
        assert page.seq <= self.model.head
        rows = [{"id": m.id, "seq": m.seq, "content": m.content} for m in page.messages]
        gone = [{"id": one.id, "seq": one.seq} for one in page.deleted]
        client.catch_up({"messages": rows, "deleted": gone, "seq": page.seq})
        client.socket.knowledge.learn(self.room.pk, 1, page.seq)
        client.seen.update(range(1, page.seq + 1))

    def _on_the_way(self, number: int, place: int) -> dict[str, Any] | None:
        pushes = self.clients[number].on_the_way
        return pushes[place % len(pushes)] if pushes else None


async def play(room, steps) -> None:
    await Play(room).run(steps)


@pytest.fixture
def runner(transactional_db):
    with asyncio.Runner() as made:
        yield made
        made.run(database.close())


BETWEEN_TWO_OF_ONES_OWN = [
    ("send", number, {slot: "a"}) for slot, number in enumerate((2, 0, 1, 0))
]
ACROSS_A_REMOVAL = [
    ("let_in",), ("send", 0, {0: "a"}), ("send", 0, {1: "a"}), ("put_out",), ("send", 0, {2: "a"}),
]  # fmt: skip


@example(steps=BETWEEN_TWO_OF_ONES_OWN)
@example(steps=ACROSS_A_REMOVAL)
@given(steps=st.lists(STEPS, max_size=30))
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_clients_end_in_the_servers_state_and_each_number_is_told_once(runner, steps):
    runner.run(play(make.chat("mio"), steps))
