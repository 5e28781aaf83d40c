"""Frames that nobody's client sends: each is refused in words, and the socket goes on."""

from __future__ import annotations

import json
import logging

import pytest

from airi_server.kernel import ids
from tests.chats.clients import Rejected, envelope_a, text

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
SEND, PULL = "chat:send-messages", "chat:pull-messages"
HALF = "\\ud800"
"""Half of a surrogate pair, as JSON writes it."""


@pytest.fixture(autouse=True)
def log(caplog):
    """Nothing a client sends is an error of ours."""
    yield caplog
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR or r.exc_info] == []


def call(tag, content):
    """Return a call as text, in which `HALF` stands where a surrogate is wanted."""
    return envelope_a(f"{tag}-send", {"invokeId": "i", "content": content})


async def refusal(client, frame):
    """Send a frame and return the error it is answered with."""
    await client.socket.send_str(frame.replace("HALF", HALF))
    answer = await client.event()
    assert "-receive-error-i" in answer["type"]
    error = answer["body"]["content"]["error"]
    assert error["name"] == "ApiError"
    return error


async def is_served(people, client):
    assert await client.send(await people.room("ria"), "hi") == 1


class TestStrings:
    @pytest.mark.parametrize("wrong", ["\x00", "HALF", "x" * 65, "é", "a b", "a\n", "../c"])
    @pytest.mark.parametrize("where", ["chatId", "id", "role"])
    async def test_that_cannot_be_ids_or_roles_are_refused(self, people, where, wrong):
        room = await people.room("ria")
        ria = await people.join("ria")
        message = {"id": ids.nanoid(), "role": "user", "content": "a"}
        content = {"chatId": room, "messages": [message]}
        (content if where == "chatId" else message)[where] = wrong

        error = await refusal(ria, call(SEND, content))

        assert error["statusCode"] == (404 if where == "chatId" and wrong != "HALF" else 400)
        assert (await ria.pull(room))["seq"] == 0

    @pytest.mark.parametrize("wrong", ["a\x00b", "aHALFb", "HALF"])
    async def test_that_cannot_be_stored_are_refused_as_content(self, people, wrong):
        room = await people.room("ria")
        ria = await people.join("ria")
        message = {"id": ids.nanoid(), "role": "user", "content": wrong}

        error = await refusal(ria, call(SEND, {"chatId": room, "messages": [message]}))

        assert error["statusCode"] == 400
        assert (await ria.pull(room))["seq"] == 0

    @pytest.mark.parametrize(
        ("invoke_id", "is_answered"),
        [("\x00", True), ("x" * 256, True), ("é\n\"'", True), ("HALF", False), ("x" * 257, False)],
    )
    async def test_in_the_id_of_a_call_come_back_or_are_refused_without(
        self, people, invoke_id, is_answered
    ):
        ria = await people.join("ria")
        frame = envelope_a(f"{PULL}-send", {"invokeId": invoke_id, "content": None})

        await ria.socket.send_str(frame.replace("HALF", HALF))

        answer = await ria.event()
        if is_answered:
            assert answer["type"] == f"{PULL}-receive-error-{invoke_id}"
            assert answer["body"]["invokeId"] == invoke_id
        else:
            assert answer["type"].endswith("hono-ws:error")
        await is_served(people, ria)

    async def test_of_names_and_types_that_are_no_text_are_ignored(self, people):
        ria = await people.join("ria")

        for frame in (
            '{"type": "HALF", "payload": {"body": {"invokeId": "i"}}}',
            '{"HALF": 1, "type": "x", "payload": {"HALF": "HALF"}}',
            '{"deliveryId": "HALF", "hopsRemaining": 1, "eventa": {"id": "HALF"}}',
            '{"type": "HALF-receive-x", "payload": {"body": {"invokeId": 7}}}',
        ):
            await ria.socket.send_str(frame.replace("HALF", HALF))

        await is_served(people, ria)
        assert ria.events.empty()


class TestNumbers:
    @pytest.mark.parametrize(
        "after_seq", ["-1", "1.5", "1e30", "1.0", "9" * 30, "true", '"1"', "null", "[]", "-0.0"]
    )
    async def test_that_are_no_cursor_are_refused(self, people, after_seq):
        room = await people.room("ria")
        ria = await people.join("ria")
        frame = call(PULL, {"chatId": room, "afterSeq": "AFTER"})

        error = await refusal(ria, frame.replace('"AFTER"', after_seq))

        assert (error["statusCode"], error["errorCode"]) == (400, "INVALID_REQUEST")
        assert error["details"][0]["path"] == "afterSeq"

    @pytest.mark.parametrize("after_seq", [2**53, 2**63 - 1, 2**63, 2**64 - 1])
    async def test_beyond_the_head_give_an_empty_page(self, people, after_seq):
        room = await people.room("ria")
        ria = await people.join("ria")
        await ria.send(room, "a")

        assert await ria.pull(room, after_seq) == {"messages": [], "seq": 1}

    @pytest.mark.parametrize("limit", ["1.5", "1e30", "9" * 30, "true", '"1"', "[]"])
    async def test_that_are_no_limit_are_refused(self, people, limit):
        room = await people.room("ria")
        ria = await people.join("ria")
        frame = call(PULL, {"chatId": room, "afterSeq": 0, "limit": "LIMIT"})

        error = await refusal(ria, frame.replace('"LIMIT"', limit))

        assert (error["statusCode"], error["details"][0]["path"]) == (400, "limit")

    @pytest.mark.parametrize("limit", [-(2**63), -1, 0, 9_999, 2**63 - 1, 2**64 - 1])
    async def test_of_any_size_are_limits(self, people, limit):
        """Case 119."""
        room = await people.room("ria")
        ria = await people.join("ria")
        await ria.send(room, "a")

        assert (await ria.pull(room, limit=limit))["seq"] == 1

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "9" * 5_000])
    @pytest.mark.parametrize("beside", ["", HALF])
    async def test_that_json_does_not_have_are_malformed(self, people, constant, beside):
        ria = await people.join("ria")
        frame = call(PULL, {"chatId": "c" + beside, "afterSeq": "AFTER"})

        await ria.socket.send_str(frame.replace('"AFTER"', constant).replace("\\\\", "\\"))

        answer = await ria.event()
        assert answer["type"].endswith("hono-ws:error") or constant.isdigit()
        await is_served(people, ria)


class TestShapes:
    @pytest.mark.parametrize("beside", ["", HALF])
    @pytest.mark.parametrize("bracket", ["[", '{"a":'])
    async def test_a_hundred_thousand_deep_are_malformed(self, people, bracket, beside):
        ria = await people.join("ria")

        await ria.socket.send_str(f'["{beside}",' + bracket * 100_000)
        closed = {"[": "]", '{"a":': "1}"}[bracket]
        await ria.socket.send_str(
            f'{{"type":"x","payload":{{"a":"{beside}","body":' + bracket * 100_000 + closed * 3
        )

        for _ in range(2):
            assert (await ria.event())["type"].endswith("hono-ws:error")
        await is_served(people, ria)

    async def test_that_repeat_a_key_or_name_more_are_read_as_the_last(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        await ria.send(room, "a")
        frame = call(PULL, {"chatId": room, "afterSeq": 0, "userId": "mio", "afterSeq2": 1})

        await ria.socket.send_str(frame.replace('"afterSeq2":1', '"afterSeq":1'))

        assert (await ria.event())["body"]["content"] == {"messages": [], "seq": 1}

    async def test_with_too_many_messages_are_refused(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        message = {"role": "user", "content": ""}
        new = [{"id": f"m{number}", **message} for number in range(501)]

        error = await refusal(ria, call(SEND, {"chatId": room, "messages": new}))

        assert error["statusCode"] == 400
        assert (await ria.pull(room))["seq"] == 0

    async def test_that_are_wrong_in_many_places_are_answered_briefly(self, people):
        ria = await people.join("ria")
        new = [{"id": "secret\x00", "role": 1, "content": 2}] * 500

        await ria.socket.send_str(call(SEND, {"chatId": "c", "messages": new}))

        answer = await ria.event()
        assert len(answer["body"]["content"]["error"]["details"]) == 20
        assert "secret" not in json.dumps(answer)


class TestStrangers:
    @pytest.mark.parametrize("tag", [SEND, PULL])
    async def test_get_403_for_a_chat_and_404_for_none_and_change_nothing(self, people, tag):
        """Case 120, for each call."""
        room = await people.room("ria")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "secret")
        mine = {"id": ids.nanoid(), "role": "user", "content": "a"}

        statuses = []
        for chat_id in (room, "nothing"):
            content = {"chatId": chat_id, "afterSeq": 0, "messages": [mine]}
            with pytest.raises(Rejected) as refused:
                await mio.call(tag, content)
            statuses.append(refused.value.args[0]["statusCode"])

        assert statuses == [403, 404]
        assert "secret" not in text(mio.frames)
        assert (await ria.pull(room))["seq"] == 1
        assert ria.pushes.empty()

    async def test_cannot_take_the_id_of_a_message_they_cannot_see(self, people):
        """They learn that it is taken, and nothing else."""
        room, own = await people.room("ria"), await people.room("mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        secret = {"id": ids.nanoid(), "role": "user", "content": "secret"}
        await ria.call(SEND, {"chatId": room, "messages": [secret]})

        for content in ("secret", "other"):
            with pytest.raises(Rejected) as refused:
                await mio.call(SEND, {"chatId": own, "messages": [{**secret, "content": content}]})
            error = refused.value.args[0]
            assert (error["statusCode"], error["details"]) == (409, {"id": secret["id"]})

        assert room not in text(mio.frames)
        assert (await ria.pull(room))["messages"][0]["content"] == "secret"
