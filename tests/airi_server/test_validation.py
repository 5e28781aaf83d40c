"""What is said of a request that does not fit: fields and what they must be, on every surface."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from airi_server.kernel import validation
from airi_server.kernel.threads import in_thread
from tests.airi_server.endpoints import EXAMPLES, NOBODY
from tests.console import rows
from tests.factories import gateway

JARGON = (
    "Input should", "instance of", "dictionary", "pydantic", "valid string", "Value error",
    "isoformat", "Extra inputs", "Field required", "ChatIn", "KeyIn", "GrantIn",
)  # fmt: skip


class Part(BaseModel):
    content: str
    kind: Literal["text", "image"] = "text"


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=3, pattern="^[a-z]*$")] = "a"
    count: Annotated[int, Field(ge=1, le=9)] = 1
    at: datetime | None = None
    on: bool = True
    parts: Annotated[list[Part], Field(max_length=2)] = []
    share: float = 0.5


def told(given, shape=Shape):
    with pytest.raises(ValidationError) as invalid:
        TypeAdapter(shape).validate_python(given, strict=True)
    details = validation.details_of(invalid.value.errors())
    return details, validation.sentence(details)


class TestMessages:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"parts": [{"content": "a"}, {"content": 7}]}, "parts[1].content must be a string"),
            ({"parts": [{}]}, "parts[0].content is required"),
            ({"parts": [7]}, "parts[0] must be an object"),
            ({"parts": {}}, "parts must be a list"),
            ({"parts": [{"content": "a"}] * 3}, "parts must have at most 2 items"),
            ({"parts": [{"content": "", "kind": "x"}]}, "parts[0].kind must be 'text' or 'image'"),
            ({"name": ""}, "name must have at least 1 character"),
            ({"name": "abcd"}, "name must have at most 3 characters"),
            ({"name": "A"}, "name must match ^[a-z]*$"),
            ({"name": None}, "name must be a string"),
            ({"count": "1"}, "count must be a whole number"),
            ({"count": 1.5}, "count must be a whole number"),
            ({"count": 0}, "count must be at least 1"),
            ({"count": 10}, "count must be at most 9"),
            ({"share": "x"}, "share must be a number"),
            ({"on": 1}, "on must be true or false"),
            ({"at": "now"}, "at must be a time in ISO 8601, such as 2030-01-31T12:00:00Z"),
            ({"more": 1}, "more is not a field of this request"),
            ([], "the body must be an object"),
        ],
    )
    def test_name_the_field_and_what_it_must_be(self, given, said):
        _, sentence = told(given)

        assert sentence == f"The request is not valid: {said}."

    def test_of_many_faults_say_three_and_how_many_more(self):
        details, sentence = told({"name": 1, "count": "", "on": 2, "share": "", "at": 7})

        assert len(details) == 5
        assert sentence.endswith("; and 2 more.")
        assert sentence.count(";") == 3

    def test_are_bounded_in_number_and_length(self):
        details, sentence = told({"x" * 5_000 + str(n): n for n in range(500)})

        assert len(details) == validation.MAX_FAULTS
        assert all(len(each["path"]) <= validation.MAX_STEP + 1 for each in details)
        assert len(sentence) < 1_000

    def test_repeat_no_control_characters(self):
        ((detail), _) = told({"a\nb\x1b": 1})

        assert detail[0]["path"] == "a?b?"

    def test_of_types_nobody_has_thought_of_are_pydantic_s_in_our_words(self):
        details, _ = told({"c": object()}, dict[str, bytes])

        assert details == [{"path": "c", "message": "must be a valid bytes"}]


class TestJSON:
    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (b"", "it is empty"),
            (b"{", "unexpected end of data (line 1, column 2, character 2)"),
            (b'{\n  "a": NaN}', "expected a JSON value (line 2, column 8, character 10)"),
            (b'{"a" 1}', "expected ':' after key (line 1, column 6, character 6)"),
            (b'{"a":1,}', "trailing comma is not allowed (line 1, column 7, character 7)"),
            (b'{"a":"\xff"}', "it is not UTF-8 (byte 7)"),
            (b'{"key": sk-airi-secret}', "(line 1, column 9, character 9)"),
        ],
    )
    def test_is_told_with_its_place_and_without_its_text(self, raw, said):
        with pytest.raises(orjson.JSONDecodeError) as malformed:
            orjson.loads(raw)

        message = validation.malformed_json(malformed.value, raw)

        assert message.startswith("The body must be JSON: ")
        assert message.removesuffix(".").endswith(said)
        assert "secret" not in message


@pytest.mark.asyncio
class TestEveryEndpoint:
    async def test_speaks_of_fields(self, served, settings):
        settings.ADMIN_EMAILS = ["operator@example.com"]
        _, key = await in_thread(rows.api_key_of)("operator@example.com")
        taking = {name: each for name, each in EXAMPLES.items() if each.body}
        asked = 0

        for name, example in taking.items():
            method, path = name.split()[0], example.path.replace("{x}", NOBODY)
            bodies = [dict.fromkeys(example.body or {}, "\0"), [], {}]
            for body in bodies:
                answered = await served.send(method, path, key=key, json=body)
                if answered.status != 400:
                    continue
                told = answered.json()["message"]
                asked += 1
                assert not [word for word in JARGON if word in answered.body.decode()], answered
                assert any(
                    word in told for word in (*(example.body or {}), "the body", "body must")
                ), told
        assert asked > len(taking)

    async def test_says_where_a_body_stops_being_json(self, served, settings):
        settings.ADMIN_EMAILS = ["operator@example.com"]
        _, key = await in_thread(rows.api_key_of)("operator@example.com")
        raw = b'{"name": "canary-4711",\n "x": oops}'

        for name, example in EXAMPLES.items():
            if not example.body or name == "POST /api/admin/config/router":
                continue
            method, path = name.split()[0], example.path.replace("{x}", NOBODY)
            answered = await served.send(
                method, path, key=key, data=raw, headers={"Content-Type": "application/json"}
            )
            message = answered.json()["message"]
            assert (answered.status, name) == (400, name)
            assert "(line 2, column 7, character 31)" in message, (name, message)
            assert b"canary" not in answered.body

    async def test_of_a_query_names_its_parameter(self, served):
        caller = await gateway.caller()

        answered = await served.get("/api/v1/chats?limit=many", caller.key)

        assert answered.status == 400
        assert "limit must be a whole number" in answered.json()["message"]
        assert answered.json()["details"] == [
            {"path": "limit", "message": "must be a whole number"}
        ]
