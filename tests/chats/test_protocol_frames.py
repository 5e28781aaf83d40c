"""What is written and read without the models is what the models say."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airi_server.kernel.errors import NotFound
from chats.sockets import envelopes, protocol
from chats.sockets.envelopes import IncomingEvent, MalformedFrame
from tests.chats import frames
from tests.chats.captured import ERROR_FRAMES, EVENTS, REQUESTS, STRANGE

MESSAGE = protocol.WireMessage(
    id="m", chat_id="c", sender_id=None, role="tool", content="hi", seq=1, created_at=1,
    updated_at=2,
)  # fmt: skip
GONE = protocol.Deleted(id="n", seq=2)
RESPONSES: dict[protocol.Procedure, list[Any]] = {
    protocol.SEND: [protocol.MessagesSent(seq=1)],
    protocol.PULL: [
        protocol.MessagesPulled(messages=(MESSAGE,), seq=2, deleted=(GONE,)),
        protocol.MessagesPulled(messages=(), seq=0),
    ],
    protocol.AUTHENTICATE: [protocol.Authenticated(user_id="u")],
}
PUSHES = [
    protocol.NewMessages(chat_id="c", messages=(MESSAGE,), from_seq=1, to_seq=1),
    protocol.NewMessages(chat_id="c", messages=(MESSAGE,), from_seq=1, to_seq=2, deleted=(GONE,)),
]
REFUSALS = [NotFound("No"), NotFound("No", details={"id": "m"}), NotFound("No", details=["a", 1])]


def written() -> list[str]:
    """Return a frame from every function that writes one."""
    made = [envelopes.connected(), envelopes.malformed(), envelopes.resync()]
    made += [envelopes.push(push) for push in PUSHES]
    for call, responses in RESPONSES.items():
        request = envelopes.CallRequest(call, 'i"1', None)
        made += [envelopes.answer(request, response) for response in responses]
        if call.is_rejected:
            made += [envelopes.refusal(request, refused) for refused in REFUSALS]
    return made


class TestWritten:
    def test_frames_are_what_the_models_say_and_of_every_kind(self):
        kinds = {frames.check(orjson.loads(text)) for text in written()}

        rejected = [call for call in protocol.CALLS.values() if call.is_rejected]
        assert kinds == {
            *protocol.EVENTS,
            *(f"{call.tag}-receive-" for call in protocol.CALLS.values()),
            *(f"{call.tag}-receive-error-" for call in rejected),
        }


def models_read(frame) -> IncomingEvent | None:
    """Return the event the models find in a frame, the newer half first; None for none."""
    with contextlib.suppress(ValidationError):
        b = protocol.EnvelopeB.model_validate(frame)
        return IncomingEvent(b.eventa.id, b.eventa.body)
    with contextlib.suppress(ValidationError):
        a = protocol.EnvelopeA.model_validate(frame)
        return IncomingEvent(a.type, a.payload.body)
    return None


def is_read_alike(text) -> bool:
    """Return whether code and models find the same; an event without an id is none at all."""
    found: IncomingEvent | None
    try:
        found = envelopes.read(text)
    except MalformedFrame:
        found = None
    if found is not None and not found.event_id:
        found = None
    try:
        expected = models_read(orjson.loads(text))
    except orjson.JSONDecodeError:
        expected = None
    return found == (None if expected is None or not expected.event_id else expected)


ABSENT = object()
WHOLE = {
    "type": "a", "payload": {"body": {}}, "deliveryId": "x", "hopsRemaining": 31,
    "eventa": {"id": "b", "body": {}},
}  # fmt: skip
BODIES: list[Any] = [None, 7, [], {"invokeId": "i"}]
PARTS: dict[str, list[Any]] = {
    "type": ["chat:pull-messages-send", "", 7, None],
    "payload": [None, 7, [], {}, *({"body": body} for body in BODIES)],
    "deliveryId": ["", 7, None],
    "hopsRemaining": [0, -1, 1.5, True, None, "1", 2**53 - 1, 2**53],
    "eventa": [None, 7, {}, {"id": 7}, {"id": ""}, *({"id": "b", "body": b} for b in BODIES)],
}
CHANGES = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([ABSENT, *values]) for name, values in PARTS.items()}
)


class TestRead:
    @pytest.mark.parametrize("text", [*REQUESTS, *EVENTS, *ERROR_FRAMES, *STRANGE["ignored"]])
    def test_frames_are_read_as_the_models_read_them(self, text):
        assert is_read_alike(text)

    @settings(max_examples=500)
    @given(CHANGES)
    def test_any_frame_is_read_as_the_models_read_it(self, changes):
        frame = {name: part for name, part in (WHOLE | changes).items() if part is not ABSENT}

        assert is_read_alike(orjson.dumps(frame).decode())
