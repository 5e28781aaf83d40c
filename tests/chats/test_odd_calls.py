"""Calls that are none of ours, or have an odd id: each is answered, and the socket goes on."""

from __future__ import annotations

import asyncio

import pytest

from chats.sockets import protocol
from tests.chats.captured import ODD_IDS, STRANGE
from tests.chats.clients import Rejected, minimal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
PULL = "chat:pull-messages"


async def is_served(people, client):
    assert await client.send(await people.room("ria"), "hi") == 1


async def authenticated(people):
    """Open a socket that has authenticated with its first call."""
    await people.know("ria")
    client = await people.open("/ws/v2/chat")
    await client.event()
    await client.call("chat:authenticate", {"token": people.token_of("ria")})
    return client


class TestIds:
    @pytest.mark.parametrize("odd_id", ODD_IDS)
    async def test_that_are_no_name_are_repeated_by_a_rejection(self, people, odd_id):
        ria = await people.join("ria")
        text = minimal(f"{PULL}-send", {"invokeId": "ID", "content": {}})

        await ria.socket.send_str(text.replace('"ID"', odd_id))

        answer = await ria.event()
        assert answer["type"] == f"{PULL}-receive-error-{ODD_IDS[odd_id]}"
        assert answer["body"]["content"]["error"]["errorCode"] == "INVALID_REQUEST"
        await is_served(people, ria)

    @pytest.mark.parametrize("open_socket", ["at once", "with its first call"])
    async def test_that_no_answer_could_repeat_get_the_error_event_which_says_why(
        self, people, open_socket
    ):
        ria = await (people.join("ria") if open_socket == "at once" else authenticated(people))

        for text in STRANGE["nameless"]:
            await ria.socket.send_str(text)
            frame = await ria.event()
            assert frame["type"] == protocol.MALFORMED
            error = frame["payload"]["body"]["error"]
            assert (error["name"], error["statusCode"]) == ("ApiError", 400)
            assert "invokeId" in error["message"] or "no" in error["message"]
            assert len(error["message"]) < 400

        await is_served(people, ria)

    async def test_of_two_calls_at_once_are_answered_twice(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        body = {"invokeId": "same", "content": {"chatId": room, "afterSeq": 0}}

        for _ in range(2):
            await ria.socket.send_str(minimal(f"{PULL}-send", body))

        for _ in range(2):
            answer = await ria.event()
            assert answer["type"] == f"{PULL}-receive-same"
            assert answer["body"]["content"] == {"messages": [], "seq": 0}


class TestUnknownCalls:
    @pytest.mark.parametrize("tag", ["chat:nothing", "", "x", "chat:pull-messages-send"])
    async def test_are_rejected_by_their_name(self, people, tag):
        ria = await people.join("ria")

        with pytest.raises(Rejected) as refused:
            await ria.call(tag, {"chatId": "c"})

        assert refused.value.args[0] == {
            "name": "ApiError", "statusCode": 400, "errorCode": "INVALID_REQUEST",
            "message": f"There is no call {tag} here.",
        }  # fmt: skip
        await is_served(people, ria)

    async def test_are_those_of_the_other_address_too(self, people):
        """Whoever is known from the upgrade does not authenticate, and need not wait to hear it."""
        ria = await people.join("ria")

        with pytest.raises(Rejected) as refused:
            await ria.call("chat:authenticate", {"token": people.token_of("ria")})

        assert refused.value.args[0]["errorCode"] == "INVALID_REQUEST"
        await is_served(people, ria)

    async def test_flood_nobody_but_wait_for_their_client_to_read(self, people):
        ria = await people.join("ria")

        calls = [ria.call(f"chat:nothing-{number}", None) for number in range(300)]
        answers = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(answer) for answer in answers} == {Rejected}
        await is_served(people, ria)


class TestBeforeAnybodyAuthenticated:
    @pytest.mark.parametrize(
        "text",
        [
            minimal("chat:authenticate-send", {"invokeId": 7, "content": {"token": "x"}}),
            minimal("chat:authenticate-send", {"content": {"token": "x"}}),
            minimal("chat:nothing-send", {"invokeId": "x"}),
        ],
    )
    async def test_everything_odd_ends_the_connection(self, people, text):
        client = await people.open("/ws/v2/chat")
        await client.event()

        await client.socket.send_str(text)

        assert await client.closed() == 4001
