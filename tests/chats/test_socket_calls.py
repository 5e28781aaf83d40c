"""Sends, pulls and pushes over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from airi_server.kernel import ids
from airi_server.kernel.threads import in_thread
from chats import rooms
from chats.models import MAX_PAGE_BYTES
from tests.chats import clients
from tests.chats.clients import Rejected
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


class TestSend:
    async def test_reaches_every_socket_of_every_member_but_the_one_that_sent(self, people):
        room = await people.room("ria", "mio")
        ria, other_ria, mio = [await people.join(name) for name in ("ria", "ria", "mio")]
        stranger = await people.join("zoe")

        assert await ria.send(room, "hi") == 1

        for client in (other_ria, mio):
            push = await client.pushed()
            assert (push["chatId"], push["fromSeq"], push["toSeq"]) == (room, 1, 1)
            (message,) = push["messages"]
            assert (message["content"], message["role"], message["seq"]) == ("hi", "user", 1)
            assert message["senderId"] == people.id_of("ria")
            assert "deleted" not in push
        assert await ria.quiet()
        assert stranger.pushes.empty()

    async def test_of_nothing_answers_the_head_and_pushes_nothing(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "hi")
        await mio.pushed()

        assert await ria.send(room) == 1
        assert await mio.quiet()

    async def test_of_the_same_again_keeps_its_number_and_pushes_nothing(self, people):
        """Case 133."""
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        call = {"chatId": room, "messages": [{"id": ids.nanoid(), "role": "user", "content": "a"}]}

        first = await ria.call("chat:send-messages", call)
        again = await ria.call("chat:send-messages", call)

        assert first == again == {"seq": 1}
        await mio.pushed()
        assert await mio.quiet()

    async def test_of_five_hundred_is_one_push(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        await ria.send(room, *("x" for _ in range(500)))

        push = await mio.pushed()
        assert (push["fromSeq"], push["toSeq"], len(push["messages"])) == (1, 500, 500)

    async def test_of_one_socket_keeps_the_order_of_its_frames(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")

        seqs = await asyncio.gather(*(ria.send(room, str(number)) for number in range(60)))

        assert seqs == list(range(1, 61))
        page = await ria.pull(room, limit=500)
        assert [m["content"] for m in page["messages"]] == [str(n) for n in range(60)]

    async def test_is_finished_when_its_client_leaves(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        content = {"chatId": room, "messages": [{"id": "m1", "role": "user", "content": "a"}]}
        body = {"invokeId": "x", "content": content}

        await ria.socket.send_str(clients.envelope_a("chat:send-messages-send", body))
        await ria.close()

        assert (await mio.pushed())["toSeq"] == 1


class TestMembership:
    async def test_ends_what_is_delivered(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "before")
        await mio.pushed()
        member = await db(make.member)(await db(make.chat_of)(room), people.id_of("mio"))

        await db(rooms.remove_member)(caller=people.id_of("ria"), chat_id=room, member_id=member.pk)
        await ria.send(room, "after")

        assert await mio.quiet()
        with pytest.raises(Rejected) as refused:
            await mio.pull(room)
        assert refused.value.args[0]["statusCode"] == 403

    async def test_begins_what_is_delivered(self, people):
        room = await people.room("ria")
        ria, mio = await people.join("ria"), await people.join("mio")
        await db(rooms.add_member)(
            caller=people.id_of("ria"), chat_id=room, at=make.NOW,
            someone=rooms.Someone("user", people.id_of("mio")),
        )  # fmt: skip

        await ria.send(room, "hi")

        assert (await mio.pushed())["messages"][0]["content"] == "hi"


class TestPull:
    async def test_without_a_usable_limit_gives_a_hundred(self, people):
        """Case 119."""
        room = await people.room("ria")
        ria = await people.join("ria")
        await ria.send(room, *("x" for _ in range(500)))
        await ria.send(room, "x")

        for limit, size in ((None, 100), (0, 100), (-1, 100), (50, 50), (9999, 500)):
            page = await ria.pull(room, limit=limit)
            assert (len(page["messages"]), page["seq"]) == (size, size), limit
        assert (await ria.pull(room, 500))["seq"] == 501

    async def test_of_a_long_page_is_cut_where_one_frame_gets_too_long(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        for _ in range(7):
            await ria.send(room, *("x" * 250_000 for _ in range(3)))

        seen, after_seq = [], 0
        while after_seq < 21:
            page = await ria.pull(room, after_seq)
            assert sum(len(m["content"]) for m in page["messages"]) <= MAX_PAGE_BYTES
            seen += [m["seq"] for m in page["messages"]]
            after_seq = page["seq"]
        assert seen == list(range(1, 22))


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "content", "status", "code"),
        [
            ("chat:pull-messages", {"chatId": "nope", "afterSeq": 0}, 404, "NOT_FOUND"),
            ("chat:send-messages", {"chatId": "nope", "messages": []}, 404, "NOT_FOUND"),
            ("chat:pull-messages", {"chatId": "", "afterSeq": 0}, 400, "INVALID_REQUEST"),
            ("chat:pull-messages", {"chatId": "c", "afterSeq": -1}, 400, "INVALID_REQUEST"),
            ("chat:pull-messages", {"chatId": "c", "afterSeq": "1"}, 400, "INVALID_REQUEST"),
            ("chat:pull-messages", {"chatId": "\x00", "afterSeq": 1}, 404, "NOT_FOUND"),
            ("chat:pull-messages", None, 400, "INVALID_REQUEST"),
            ("chat:pull-messages", [1], 400, "INVALID_REQUEST"),
            ("chat:send-messages", {"chunk": 1}, 400, "INVALID_REQUEST"),
            ("chat:send-messages", {"chatId": "c", "messages": None}, 400, "INVALID_REQUEST"),
        ],
    )
    async def test_are_answers(self, people, call, content, status, code):
        """Cases 120, 126."""
        ria = await people.join("ria")

        with pytest.raises(Rejected) as refused:
            await ria.call(call, content)

        error = refused.value.args[0]
        assert (error["name"], error["statusCode"], error["errorCode"]) == (
            "ApiError",
            status,
            code,
        )
        assert error["message"]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": ""}, {"id": "a b"}, {"id": "x" * 65}, {"role": "developer"}, {"role": None},
            {"content": "a\x00b"}, {"content": None}, {"content": "x" * 262_145},
        ],
    )  # fmt: skip
    async def test_of_bad_messages_name_what_is_wrong(self, people, wrong):
        room = await people.room("ria")
        ria = await people.join("ria")
        message = {"id": ids.nanoid(), "role": "user", "content": "a", **wrong}

        with pytest.raises(Rejected) as refused:
            await ria.call("chat:send-messages", {"chatId": room, "messages": [message]})

        assert refused.value.args[0]["statusCode"] == 400
        assert (await ria.pull(room))["seq"] == 0

    async def test_of_half_a_surrogate_pair_are_answers_too(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")

        frame = clients.envelope_a("chat:send-messages-send", {"invokeId": "i", "content": {
            "chatId": room, "messages": [{"id": "m", "role": "user", "content": "HALF"}],
        }})  # fmt: skip
        await ria.socket.send_str(frame.replace("HALF", "\\ud800"))

        frame = await ria.event()
        while "body" not in frame:
            frame = await ria.event()
        assert frame["body"]["content"]["error"]["statusCode"] == 400

    async def test_never_tell_what_broke(self, people, monkeypatch, caplog):
        async def crash(**_):
            raise ZeroDivisionError("SELECT secret")

        monkeypatch.setattr("chats.messages.pull", crash)
        ria = await people.join("ria")

        with pytest.raises(Rejected) as refused:
            await ria.pull("c1")

        assert refused.value.args[0] == {
            "name": "ApiError", "statusCode": 500, "errorCode": "INTERNAL_SERVER_ERROR",
            "message": "Internal Server Error",
        }  # fmt: skip
        assert "A call crashed" in caplog.text
