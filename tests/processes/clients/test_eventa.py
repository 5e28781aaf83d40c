"""The chat sockets with the client that front ends use, of both generations of its envelope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from django.core.management import call_command
from django.db import connection

from accounts.models import APIKey
from airi_server.kernel import ids
from tests.factories import accounts
from tests.factories import chats as make
from tests.lab.instances import Fleet
from tests.processes.clients import eventa, node
from tests.processes.clients.eventa import EventaClient, Rejected

pytestmark = [node.needed, pytest.mark.xdist_group("eventa")]
AUTHENTICATE = "chat:authenticate"
SEND = "chat:send-messages"
PULL = "chat:pull-messages"
Open = Callable[..., EventaClient]


@pytest.fixture(scope="module")
def server(nursery, django_db_blocker):
    """One server for all of them: each test has users and chats of its own."""
    with django_db_blocker.unblock():
        with Fleet(nursery) as fleet:
            yield fleet.start()
        call_command("flush", interactive=False, verbosity=0)
        connection.close()


@pytest.fixture(autouse=True)
def transactional_db(server):
    """Stand in for the fixture of this name, which would empty the database after each test."""


@pytest.fixture
def open_socket(server) -> Iterator[Open]:
    """Return what opens a socket with a version of the client, past the server's first frame."""
    with ExitStack() as opened:

        def open_one(version: str, path: str) -> EventaClient:
            url = server.base_url.replace("http", "ws", 1) + path
            client = opened.enter_context(eventa.connected(version, url))
            assert client.connected()
            return client

        yield open_one


@pytest.fixture
def ria(server) -> tuple[APIKey, str]:
    """A user's key and its secret."""
    return accounts.api_key()


@pytest.fixture
def mio(server) -> tuple[APIKey, str]:
    return accounts.api_key()


@pytest.fixture
def room(ria, mio) -> str:
    """The id of a chat of the two."""
    return make.chat(mio[0].user_id, owner=ria[0].user_id).pk


def message(content: str, role: str = "user") -> dict[str, str]:
    return {"id": ids.nanoid(), "role": role, "content": content}


def ticket(server, secret: str) -> str:
    headers = {"Authorization": f"Bearer {secret}"}
    made = httpx.post(f"{server.base_url}/api/v1/ws-tickets", headers=headers)
    assert made.status_code == 201
    fresh: str = made.json()["ticket"]
    return fresh


@pytest.mark.parametrize("version", eventa.VERSIONS)
class TestCalls:
    def test_are_answered_and_pushed_to_others_but_not_back(
        self, open_socket, ria, mio, room, version
    ):
        hers = open_socket(version, f"/ws/chat?token={ria[1]}")
        other = open_socket(version, f"/ws/chat?token={mio[1]}")
        said = message("hi there")

        assert hers.send(room, said) == {"seq": 1}

        pushed = other.pushed()
        [heard] = pushed.pop("messages")
        assert pushed == {"chatId": room, "fromSeq": 1, "toSeq": 1}
        assert {**heard, **said, "senderId": ria[0].user_id, "seq": 1} == heard
        assert other.pull(room) == {"messages": [heard], "seq": 1}
        assert hers.pull(room, after_seq=1) == {"messages": [], "seq": 1}
        assert hers.pushes.empty()

    def test_that_are_refused_reject_with_the_error_itself(self, open_socket, ria, room, version):
        client = open_socket(version, f"/ws/chat?token={ria[1]}")

        with pytest.raises(Rejected) as missing:
            client.pull("no-such-chat")
        with pytest.raises(Rejected) as invalid:
            client.pull(room, after_seq=-1)

        assert missing.value.args[0] == {
            "name": "ApiError",
            "statusCode": 404,
            "errorCode": "NOT_FOUND",
            "message": "Chat not found",
        }
        error = invalid.value.args[0]
        assert (error["statusCode"], error["errorCode"]) == (400, "INVALID_REQUEST")
        assert error["details"][0]["path"] == "afterSeq"
        assert client.pull(room) == {"messages": [], "seq": 0}

    def test_that_do_not_exist_reject_too(self, open_socket, ria, room, version):
        client = open_socket(version, f"/ws/chat?token={ria[1]}")

        for tag in ("chat:nothing", AUTHENTICATE):
            with pytest.raises(Rejected) as unknown:
                client.call(tag, {"token": ria[1]})
            assert unknown.value.args[0] == {
                "name": "ApiError",
                "statusCode": 400,
                "errorCode": "INVALID_REQUEST",
                "message": f"There is no call {tag} here.",
            }
        assert client.pull(room) == {"messages": [], "seq": 0}

    @pytest.mark.parametrize(
        ("odd_id", "word"), [(7, "7"), (None, "null"), ("", ""), (True, "true")]
    )
    def test_with_an_odd_id_are_answered_where_their_caller_listens(
        self, open_socket, ria, room, version, odd_id, word
    ):
        client = open_socket(version, f"/ws/chat?token={ria[1]}")

        answer = client.emit(
            f"{PULL}-send",
            {"invokeId": odd_id, "content": {"chatId": room, "afterSeq": 0}},
            answer=f"{PULL}-receive-error-{word}",
        )

        assert answer["invokeId"] == odd_id
        assert answer["content"]["error"]["errorCode"] == "INVALID_REQUEST"
        assert client.pull(room) == {"messages": [], "seq": 0}

    def test_without_an_id_are_answered_by_an_event_that_says_why(
        self, open_socket, ria, room, version
    ):
        client = open_socket(version, f"/ws/chat?token={ria[1]}")

        answer = client.emit(
            f"{PULL}-send",
            {"content": {"chatId": room, "afterSeq": 0}},
            answer="eventa:adapters:hono-ws:error",
        )

        assert answer["error"]["errorCode"] == "INVALID_REQUEST"
        assert "needs an invokeId" in answer["error"]["message"]
        assert client.pull(room) == {"messages": [], "seq": 0}

    def test_at_once_get_each_its_own_answer(self, open_socket, ria, room, version):
        client = open_socket(version, f"/ws/chat?token={ria[1]}")
        said = [message(f"number {number}") for number in range(1, 21)]

        sends = [client.start(SEND, {"chatId": room, "messages": [one]}) for one in said]
        assert [each.result(20)["seq"] for each in sends] == list(range(1, 21))

        pulls = [
            client.start(PULL, {"chatId": room, "afterSeq": after, "limit": 1})
            for after in range(20)
        ]
        found = [each.result(20)["messages"][0]["content"] for each in pulls]
        assert found == [f"number {number}" for number in range(1, 21)]

    def test_of_others_are_heard_once_each(self, open_socket, ria, mio, room, version):
        hers = open_socket(version, f"/ws/chat?token={ria[1]}")
        listeners = [open_socket(version, f"/ws/chat?token={mio[1]}") for _ in range(2)]
        said = [message(f"number {number}") for number in range(20)]

        for one in said:
            hers.send(room, one)

        # A frame whose delivery id another one had is dropped by the client, and would be missed.
        for listener in listeners:
            heard: list[str] = []
            while len(heard) < len(said):
                heard += [each["id"] for each in listener.pushed()["messages"]]
            assert sorted(heard) == sorted(one["id"] for one in said)
            assert listener.pull(room)["seq"] == len(said)
            assert listener.pushes.empty()


@pytest.mark.parametrize("version", eventa.VERSIONS)
class TestAuthentication:
    def test_with_a_bad_token_is_4001(self, open_socket, server, version):
        url = server.base_url.replace("http", "ws", 1) + "/ws/chat?token=sk-airi-nope"

        with eventa.connected(version, url) as client:
            assert client.closed() == 4001

    def test_with_the_first_call_serves_from_then_on(self, open_socket, ria, mio, room, version):
        hers = open_socket(version, "/ws/v2/chat")
        other = open_socket(version, f"/ws/chat?token={mio[1]}")

        assert hers.call(AUTHENTICATE, {"token": ria[1]}) == {"userId": ria[0].user_id}

        other.send(room, message("are you there?"))
        assert hers.pushed()["toSeq"] == 1
        assert hers.send(room, message("yes")) == {"seq": 2}

    def test_with_a_bad_first_call_is_4001(self, open_socket, version):
        client = open_socket(version, "/ws/v2/chat")

        with pytest.raises(Rejected, match="websocket disconnected"):
            client.call(AUTHENTICATE, {"token": "sk-airi-nope"})

        assert client.closed() == 4001

    def test_with_a_ticket_works_once(self, open_socket, server, ria, room, version):
        once = ticket(server, ria[1])
        first, second = (open_socket(version, "/ws/v2/chat") for _ in range(2))

        assert first.call(AUTHENTICATE, {"token": once}) == {"userId": ria[0].user_id}
        with pytest.raises(Rejected):
            second.call(AUTHENTICATE, {"token": once})

        assert second.closed() == 4001
        in_url = open_socket(version, f"/ws/chat?ticket={ticket(server, ria[1])}")
        assert in_url.pull(room) == first.pull(room) == {"messages": [], "seq": 0}


def test_both_generations_hear_each_other(open_socket, ria, mio, room):
    older = open_socket("A", f"/ws/chat?token={ria[1]}")
    newer = open_socket("B", "/ws/v2/chat")
    newer.call(AUTHENTICATE, {"token": mio[1]})

    older.send(room, message("from A"))
    assert newer.pushed()["messages"][0]["content"] == "from A"
    newer.send(room, message("from B"))
    assert older.pushed()["messages"][0]["content"] == "from B"

    assert older.pull(room) == newer.pull(room)
    assert [one["content"] for one in older.pull(room)["messages"]] == ["from A", "from B"]
