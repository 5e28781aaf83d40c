"""Every captured frame is read as input; every frame we write is read by both generations."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_server.kernel.errors import NotFound
from chats.sockets import envelopes, protocol
from chats.sockets.envelopes import MalformedFrame, Uncallable
from tests.chats.captured import ERROR_FRAMES, EVENTS, ODD_IDS, REQUESTS, STRANGE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
)


def request_in(text):
    return envelopes.request_in(envelopes.read(text), protocol.CALLS)


class TestRead:
    @pytest.mark.parametrize("text", REQUESTS)
    def test_finds_the_call_in_a_captured_request(self, text):
        invoke_id, tag, content = REQUESTS[text]

        request = request_in(text)

        assert request is not None
        assert (request.invoke_id, request.call.tag) == (invoke_id, tag)
        assert request.content == content

    @pytest.mark.parametrize("text", [*EVENTS, *ERROR_FRAMES])
    def test_finds_nothing_to_answer_in_any_other_captured_frame(self, text):
        assert request_in(text) is None

    @pytest.mark.parametrize("text", STRANGE["malformed"])
    def test_refuses_what_is_no_envelope(self, text):
        """Case 124."""
        with pytest.raises(MalformedFrame):
            request_in(text)

    @pytest.mark.parametrize("text", STRANGE["ignored"])
    def test_ignores_what_asks_for_nothing(self, text):
        """Case 125."""
        assert request_in(text) is None

    @pytest.mark.parametrize("text", STRANGE["nameless"])
    def test_knows_what_asks_for_an_answer_that_cannot_be_found(self, text):
        with pytest.raises(Uncallable) as odd:
            request_in(text)

        frame = orjson.loads(envelopes.uncallable(odd.value))
        assert frame["type"] == protocol.MALFORMED
        error = frame["payload"]["body"]["error"]
        assert (error["statusCode"], error["errorCode"]) == (400, "INVALID_REQUEST")
        assert error["message"]

    @pytest.mark.parametrize("tag", ["chat:pull-messages", "chat:nothing"])
    @pytest.mark.parametrize("odd_id", ODD_IDS)
    def test_repeats_an_odd_id_in_the_rejection_of_its_call(self, odd_id, tag):
        text = f'{{"type":"{tag}-send","payload":{{"body":{{"invokeId":{odd_id}}}}}}}'

        with pytest.raises(Uncallable) as odd:
            request_in(text)

        frame = orjson.loads(envelopes.uncallable(odd.value))
        assert frame["type"] == f"{tag}-receive-error-{ODD_IDS[odd_id]}"
        assert frame["payload"]["invokeType"] == 5
        body = frame["payload"]["body"]
        assert body["invokeId"] == orjson.loads(odd_id)
        assert body["content"]["error"]["errorCode"] == "INVALID_REQUEST"

    @given(JSON)
    def test_answers_or_serves_every_call_whatever_its_id(self, invoke_id):
        event = envelopes.IncomingEvent("chat:pull-messages-send", {"invokeId": invoke_id})

        with contextlib.suppress(Uncallable):
            assert envelopes.request_in(event, protocol.CALLS) is not None
            return
        with pytest.raises(Uncallable) as odd:
            envelopes.request_in(event, protocol.CALLS)
        assert envelopes.uncallable(odd.value)

    def test_prefers_the_newer_half_of_a_merged_frame(self):
        merged = orjson.loads(envelopes.connected()) | {
            "type": "old",
            "eventa": {"id": "new", "body": 1},
        }

        assert envelopes.read(orjson.dumps(merged).decode()) == envelopes.IncomingEvent("new", 1)

    def test_falls_back_to_the_older_half_when_the_newer_is_broken(self):
        merged = orjson.loads(envelopes.connected())

        for name, value in (
            ("deliveryId", ""),
            ("hopsRemaining", -1),
            ("eventa", {}),
            ("eventa", 1),
        ):
            text = orjson.dumps(merged | {name: value}).decode()
            assert envelopes.read(text).event_id == protocol.CONNECTED

    @pytest.mark.parametrize("hops", [0, 31, 2**53 - 1])
    def test_delivers_whatever_has_hops_left_or_not(self, hops):
        """The last hop is the one to us."""
        delivery = {"deliveryId": "d", "hopsRemaining": hops, "eventa": {"id": "x", "body": 1}}

        assert envelopes.read(orjson.dumps(delivery).decode()) == envelopes.IncomingEvent("x", 1)

    @given(st.text())
    def test_never_crashes(self, text):
        with contextlib.suppress(MalformedFrame):
            envelopes.read(text)


class TestWritten:
    def frames(self):
        request = envelopes.CallRequest(protocol.PULL, 'py"1', None)
        new = protocol.NewMessages(chat_id="c", messages=(), from_seq=1, to_seq=1)
        return {
            "eventa:adapters:hono-ws:connected": envelopes.connected(),
            "eventa:adapters:hono-ws:error": envelopes.malformed(),
            "chat:resync": envelopes.resync(),
            "chat:new-messages": envelopes.push(new),
            'chat:pull-messages-receive-py"1': envelopes.answer(
                request, protocol.MessagesPulled(messages=(), seq=7)
            ),
            'chat:pull-messages-receive-error-py"1': envelopes.refusal(request, NotFound("No")),
        }

    def test_frames_are_read_by_peers_of_either_generation(self):
        for event_id, text in self.frames().items():
            frame = orjson.loads(text)
            assert frame["type"] == frame["payload"]["id"] == frame["eventa"]["id"] == event_id
            assert frame["payload"] == frame["eventa"]
            assert frame["eventa"]["type"] == "event"
            assert frame["hopsRemaining"] == 31
            assert envelopes.read(text).event_id == event_id

    def test_frames_have_ids_of_their_own(self):
        ids = [orjson.loads(envelopes.connected())["deliveryId"] for _ in range(1_000)]

        assert len(set(ids)) == 1_000

    def test_answers_repeat_the_id_of_the_call(self):
        """Case 123."""
        frame = orjson.loads(self.frames()['chat:pull-messages-receive-py"1'])

        assert frame["payload"]["invokeType"] == 4
        assert frame["payload"]["body"] == {
            "invokeId": 'py"1', "content": {"messages": [], "seq": 7},
        }  # fmt: skip

    def test_refusals_are_errors_a_client_can_read(self):
        """Case 126."""
        frame = orjson.loads(self.frames()['chat:pull-messages-receive-error-py"1'])

        assert frame["payload"]["invokeType"] == 5
        assert frame["payload"]["body"]["content"] == {
            "error": {
                "name": "ApiError", "statusCode": 404, "errorCode": "NOT_FOUND", "message": "No",
            },
        }  # fmt: skip

    def test_details_travel_when_there_are_any(self):
        request = envelopes.CallRequest(protocol.SEND, "x", None)
        text = envelopes.refusal(request, NotFound("No", details={"id": "m"}))

        assert orjson.loads(text)["eventa"]["body"]["content"]["error"]["details"] == {"id": "m"}
