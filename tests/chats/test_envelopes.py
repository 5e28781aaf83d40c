"""Every captured frame is read as input; every frame we write is read by both generations."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airi_server.kernel.errors import NotFound
from chats import envelopes, protocol
from chats.envelopes import Malformed
from tests.chats.captured import ERROR_FRAMES, EVENTS, REQUESTS, STRANGE


def request_in(text):
    return envelopes.request_in(envelopes.read(text))


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
        with pytest.raises(Malformed):
            request_in(text)

    @pytest.mark.parametrize("text", STRANGE["ignored"])
    def test_ignores_what_asks_for_nothing(self, text):
        """Case 125."""
        assert request_in(text) is None

    def test_prefers_the_newer_half_of_a_merged_frame(self):
        merged = orjson.loads(envelopes.connected()) | {
            "type": "old",
            "eventa": {"id": "new", "body": 1},
        }

        assert envelopes.read(orjson.dumps(merged).decode()) == envelopes.Incoming("new", 1)

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

        assert envelopes.read(orjson.dumps(delivery).decode()) == envelopes.Incoming("x", 1)

    @given(st.text())
    def test_never_crashes(self, text):
        with contextlib.suppress(Malformed):
            envelopes.read(text)


class TestWritten:
    def frames(self):
        request = envelopes.Request(protocol.PULL, 'py"1', None)
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
        request = envelopes.Request(protocol.SEND, "x", None)
        text = envelopes.refusal(request, NotFound("No", details={"id": "m"}))

        assert orjson.loads(text)["eventa"]["body"]["content"]["error"]["details"] == {"id": "m"}
