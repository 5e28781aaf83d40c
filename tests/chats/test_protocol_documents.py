"""What is published of the protocol: committed as it is made, whole, and true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from pydantic import BaseModel, ValidationError

from chats.sockets import protocol
from chats.sockets.documents import asyncapi, files, frames, schemas, typescript
from chats.sockets.routing import websocket_urlpatterns
from tests.chats.test_protocol_frames import written

DOCS = settings.BASE_DIR / "docs"
ASYNCAPI = asyncapi.document()
JSON_SCHEMA = schemas.document()


def references(node: Any) -> Iterator[str]:
    """Yield every `$ref` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = document[step]
    return document


CONTENTS = {
    protocol.SEND: {"chatId": "c", "messages": [{"id": "m", "role": "user", "content": "hi"}]},
    protocol.PULL: {"chatId": "c", "afterSeq": 0},
    protocol.AUTHENTICATE: {"token": "t"},
}


def fits(model: type[BaseModel], text: str) -> bool:
    try:
        model.model_validate_json(text)
    except ValidationError:
        return False
    return True


class TestFiles:
    @pytest.mark.parametrize("name", files.by_name())
    def test_are_the_ones_the_code_makes(self, name):
        made = files.by_name()[name]

        assert (DOCS / name).read_text() == made, "run: ./run manage export-chat-protocol"


class TestAsyncAPI:
    def test_has_nothing_that_leads_nowhere(self):
        found = list(references(ASYNCAPI))

        assert len(found) > 100
        for reference in found:
            assert resolved(ASYNCAPI, reference), reference

    def test_has_every_address_that_is_served(self):
        served = {f"/{pattern.pattern}" for pattern in websocket_urlpatterns}
        described = {channel["address"] for channel in ASYNCAPI["channels"].values()}

        assert described == served == set(protocol.SOCKETS)

    def test_has_what_the_standard_requires(self):
        assert ASYNCAPI["asyncapi"] == "3.0.0"
        assert ASYNCAPI["info"].keys() >= {"title", "version"}
        for server in ASYNCAPI["servers"].values():
            assert server.keys() >= {"host", "protocol"}
        for operation in ASYNCAPI["operations"].values():
            assert operation["action"] in ("send", "receive")
            assert "channel" in operation
        assert all(re.fullmatch(r"[\w.-]+", name) for name in ASYNCAPI["operations"])

    def test_operates_only_with_messages_of_its_channel(self):
        for operation in ASYNCAPI["operations"].values():
            for part in (operation, operation.get("reply", operation)):
                own = f"{part['channel']['$ref']}/messages/"
                assert part["messages"]
                assert all(each["$ref"].startswith(own) for each in part["messages"])

    def test_replies_to_every_call_and_sends_every_event(self):
        for path, calls in protocol.SOCKETS.items():
            prefix = f"{asyncapi.CHANNELS[path]}."
            names = []
            for name, operation in ASYNCAPI["operations"].items():
                if name.startswith(prefix):
                    parts = (operation, operation.get("reply", {"messages": []}))
                    names += [each["$ref"] for part in parts for each in part["messages"]]
            events = [
                resolved(ASYNCAPI, resolved(ASYNCAPI, name)["$ref"])["name"] for name in names
            ]
            rejected = [call.tag for call in calls if call.is_rejected]

            assert sorted(events) == sorted([
                *protocol.EVENTS,
                *(f"{call.tag}-send" for call in calls),
                *(f"{call.tag}-receive-{{invokeId}}" for call in calls),
                *(f"{tag}-receive-error-{{invokeId}}" for tag in rejected),
            ])  # fmt: skip

    def test_says_what_every_close_code_means(self):
        for channel in ASYNCAPI["channels"].values():
            codes = [closing["code"] for closing in channel["x-close-codes"]]
            assert codes == list(protocol.CloseCode)


class TestFrames:
    """The frames' models are made for the documents; what travels has to fit them."""

    def test_of_the_server_fit_the_message_that_has_their_event_and_no_other(self):
        replies = [reply for call in protocol.CALLS.values() for reply in frames.replies(call)]
        sent = [*frames.events().values(), *replies]

        for text in written():
            event_id = json.loads(text)["type"]
            fitting = [message.event_id for message in sent if fits(message.frame, text)]
            assert [each.replace("{invokeId}", 'i"1') for each in fitting] == [event_id]

    @pytest.mark.parametrize("call", protocol.CALLS.values(), ids=lambda call: call.tag)
    def test_of_a_client_fit_the_call_in_either_envelope(self, call):
        frame, event_id = frames.request(call).frame, f"{call.tag}-send"
        body = {"invokeId": "i", "content": CONTENTS[call]}
        older = {"type": event_id, "payload": {"body": body}}
        eventa = {"id": event_id, "body": body}
        newer = {"deliveryId": "d", "hopsRemaining": 1, "eventa": eventa}

        assert fits(frame, json.dumps(older))
        assert fits(frame, json.dumps(newer))
        assert not fits(frame, json.dumps({**older, "type": "chat:other-send"}))
        assert not fits(frame, json.dumps({**newer, "eventa": {**eventa, "id": "chat:other-send"}}))
        body["content"] = {}
        assert not fits(frame, json.dumps(older))
        assert not fits(frame, json.dumps(newer))


class TestJSONSchema:
    def test_has_nothing_that_leads_nowhere(self):
        assert all(resolved(JSON_SCHEMA, reference) for reference in references(JSON_SCHEMA))

    def test_has_every_body_and_the_three_envelopes(self):
        bodies = {body.__name__ for body in protocol.EVENTS.values()}
        for call in protocol.CALLS.values():
            bodies |= {call.request.__name__, call.response.__name__}
        envelopes = {"EnvelopeA", "EnvelopeB", "EnvelopeMerged"}

        assert JSON_SCHEMA["$defs"].keys() >= bodies | envelopes | {"ChatError"}
        assert {ref.rpartition("/")[2] for ref in references(JSON_SCHEMA["anyOf"])} == envelopes

    def test_leaves_out_nothing_that_is_always_sent(self):
        definitions = JSON_SCHEMA["$defs"]
        optional = {
            f"{name}.{field}"
            for name, made in definitions.items()
            for field in made["properties"].keys() - set(made.get("required", ()))
        }

        assert optional == {
            "ChatError.details", "EventA.body", "EventB.body", "EventMerged.invokeType",
            "Invocation.content", "MessagesPulled.deleted", "NewMessages.deleted",
            "PullMessages.limit",
        }  # fmt: skip


class TestTypeScript:
    def test_declares_every_definition_once(self):
        declared = re.findall(r"^export (?:interface|type) (\w+)", typescript.text(), re.MULTILINE)

        assert len(declared) == len(set(declared))
        assert set(declared) >= JSON_SCHEMA["$defs"].keys()

    def test_knows_every_call_and_event_by_its_name(self):
        text = typescript.text()

        for call in protocol.CALLS.values():
            assert f"{json.dumps(call.tag)}: {{ request: {call.request.__name__};" in text
        for event_id, body in protocol.EVENTS.items():
            assert f"{json.dumps(event_id)}: {body.__name__};" in text
