"""What is published of the chat protocol, with the tools that others read it by."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from django.conf import settings

from airi_server.kernel.errors import NotFound
from chats.sockets import envelopes, protocol
from chats.sockets.envelopes import CallRequest
from tests.processes.clients import node

pytestmark = [node.needed, pytest.mark.xdist_group("published")]
DOCS: Final = Path(settings.BASE_DIR) / "docs"
VALIDATOR: Final = (
    "@asyncapi/specs@6.11.1", "@types/json-schema@7.0.15", "ajv@8.20.0", "ajv-formats@3.0.1",
    "fast-deep-equal@3.1.3", "fast-uri@3.1.9", "json-schema-traverse@1.0.0",
    "require-from-string@2.0.2",
)  # fmt: skip
COMPILER: Final = (
    "typescript@7.0.2", "@moeru/eventa@1.0.0-beta.14", "nanoid@6.0.2", "picomatch@4.0.7",
)  # fmt: skip
STRICT: Final = (
    "--noEmit", "--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target",
    "es2022", "--lib", "es2022,dom",
)  # fmt: skip
SCHEMAS: Final = "components/schemas"
ROW: Final = {
    "id": "m", "chatId": "c", "senderId": None, "role": "user", "content": "hi", "seq": 1,
    "createdAt": 1, "updatedAt": 1,
}  # fmt: skip


def written() -> list[tuple[str, str, Any, bool]]:
    """Return frames of the server, each with what it is an example of, and of what it is not."""
    request = CallRequest(protocol.PULL, "i", None)
    page = protocol.MessagesPulled.model_validate_json(
        orjson.dumps({"messages": [ROW], "seq": 2, "deleted": [{"id": "n", "seq": 2}]})
    )
    push = protocol.NewMessages.model_validate_json(
        orjson.dumps({"chatId": "c", "messages": [ROW], "fromSeq": 1, "toSeq": 1})
    )
    examples = {
        "ConnectedFrame": envelopes.connected(),
        "ErrorFrame": envelopes.malformed(),
        "ResyncFrame": envelopes.resync(),
        "NewMessagesFrame": envelopes.push(push),
        "MessagesPulledFrame": envelopes.answer(request, page),
        "PullMessagesRejectedFrame": envelopes.refusal(request, NotFound("No")),
    }
    return [
        ("asyncapi", f"{SCHEMAS}/{name}", orjson.loads(text), name == example)
        for name in examples
        for example, text in examples.items()
    ]


def asked() -> list[tuple[str, str, Any, bool]]:
    """Return requests and bodies, and whether they are what they should be."""
    body = {"invokeId": "i", "content": {"chatId": "c", "afterSeq": 0}}
    older = {"type": "chat:pull-messages-send", "payload": {"body": body}}
    event = {"id": "chat:pull-messages-send", "body": body}
    newer = {"deliveryId": "x", "hopsRemaining": 31, "eventa": event}
    frame = f"{SCHEMAS}/PullMessagesFrame"
    message = {"id": "m", "role": "user", "content": "hi"}
    send = {"chatId": "c", "messages": [message]}
    return [
        ("asyncapi", frame, older, True),
        ("asyncapi", frame, newer, True),
        ("asyncapi", frame, older | {"type": "chat:send-messages-send"}, False),
        ("asyncapi", frame, newer | {"hopsRemaining": -1}, False),
        ("asyncapi", frame, {"type": "chat:pull-messages-send", "payload": {"body": {}}}, False),
        ("bodies", "$defs/SendMessages", send, True),
        ("bodies", "$defs/SendMessages", send | {"messages": [message | {"id": "a b"}]}, False),
        ("bodies", "$defs/SendMessages", send | {"messages": [message] * 501}, False),
        ("bodies", "$defs/PullMessages", {"chatId": "c", "afterSeq": -1}, False),
        ("bodies", "$defs/WireMessage", ROW, True),
        ("bodies", "$defs/WireMessage", ROW | {"senderId": 7}, False),
        ("bodies", "$defs/EnvelopeMerged", orjson.loads(envelopes.connected()), True),
    ]


def test_the_documents_are_what_their_standards_say_and_describe_what_travels():
    script = node.script("published.mjs", *VALIDATOR)
    given = {
        "asyncapi": json.loads((DOCS / "asyncapi.json").read_text()),
        "schema": json.loads((DOCS / "websocket.schema.json").read_text()),
        "frames": [*written(), *asked()],
    }

    ran = subprocess.run(
        ["node", script.name], cwd=script.parent, input=json.dumps(given), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == []


def test_the_declarations_compile_and_keep_a_front_end_from_mistakes():
    home = node.script("published.ts", *COMPILER).parent
    shutil.copy(DOCS / "websocket.d.ts", home)
    (example,) = re.findall(
        r"^```ts\n(.*?)^```$", (DOCS / "websocket.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (home / "example.ts").write_text(example)
    tsc = home / "node_modules" / ".bin" / "tsc"

    ran = subprocess.run(
        [tsc, *STRICT, "published.ts", "example.ts", "websocket.d.ts"], cwd=home,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert (ran.returncode, ran.stdout) == (0, "")
