"""`/docs`: the reference of the HTTP API, made from its OpenAPI document, without any script.

It is made once in a process, and nothing on it is fetched from elsewhere: it is there where the
server is. Beside it are the documents for programs, and the pages that it leads to, as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from airi_server.api import api

JSON = dict[str, Any]
HTML: Final = "text/html; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
FILES: Final = {
    "errors.md": TEXT,
    "websocket.md": TEXT,
    "websocket.d.ts": TEXT,
    "websocket.schema.json": "application/json",
    "asyncapi.json": "application/json",
}
"""What of `docs/` is served as it is: what somebody needs who writes a client."""
SECTIONS: Final = (
    ("openai", "Models and completions", "/v1"),
    ("flux", "Flux: balance and charges", "/api/v1/flux"),
    ("API keys", "API keys", "/api/v1/keys"),
    ("Chats", "Chats", "/api/v1/chats"),
    ("Characters", "Characters", "/api/v1/characters"),
    ("Operators", "For operators", "/api/admin"),
)
"""Tag, heading and address, in the order in which a reader needs them."""
TWICE: Final = "/api/v1/openai/"
"""The same surface as `/v1`, for older clients: said in a sentence."""
DEPTH: Final = 3
QUOTE: Final = '"'
BOUNDS: Final = (
    ("minLength", "maxLength", "character"),
    ("minItems", "maxItems", "item"),
    ("minimum", "maximum", ""),
)
COUNTLESS: Final = 2**53 - 1
"""What JavaScript counts exactly is no bound that a reader has to know."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body or parameter of an address; `name` is a path: `members[].type`."""

    name: str
    type: str
    about: SafeString
    is_required: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, as a reader sees it."""

    id: str
    method: str
    path: str
    summary: str
    about: list[SafeString]
    parameters: list[Field]
    body: list[Field]
    answers: list[tuple[str, list[Field]]]
    refusals: list[str]


@csrf_exempt
@require_safe
def reference(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(_page(settings.API_SERVER_URL), content_type=HTML)


@csrf_exempt
@require_safe
def document(_request: HttpRequest, name: str) -> HttpResponse:
    """Answer one of the documents that the reference leads to."""
    if name not in FILES:
        raise Http404
    return HttpResponse(_read(name), content_type=FILES[name])


@lru_cache(maxsize=4)
def _page(address: str) -> str:
    schema = api.get_openapi_schema()
    sections = [
        {"heading": heading, "address": address, "operations": list(_operations(schema, tag))}
        for tag, heading, address in SECTIONS
    ]
    return render_to_string("front/reference.html", {"sections": sections, "server": address})


@lru_cache(maxsize=len(FILES))
def _read(name: str) -> bytes:
    return (Path(settings.BASE_DIR) / "docs" / name).read_bytes()


def _operations(schema: JSON, tag: str) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"] and not path.startswith(TWICE):
                yield _operation(schema, path, method.upper(), operation)


def _operation(schema: JSON, path: str, method: str, operation: JSON) -> Operation:
    answers = {str(status): answer for status, answer in operation["responses"].items()}
    summary: str = operation["summary"]
    return Operation(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=summary[0] + summary[1:].lower(),
        about=[_prose(each) for each in operation.get("description", "").split("\n\n")],
        parameters=[_parameter(each) for each in operation.get("parameters", [])],
        body=_body(schema, operation.get("requestBody", {})),
        answers=[(s, _body(schema, a)) for s, a in answers.items() if s.startswith("2")],
        refusals=[status for status in answers if not status.startswith("2")],
    )


def _parameter(given: JSON) -> Field:
    where = {"path": "In the path", "query": "In the query", "header": "A header"}[given["in"]]
    about = _prose(f"{where}. {_about({}, given['schema'])} {given.get('description', '')}")
    return Field(given["name"], _type({}, given["schema"]), about, given.get("required", False))


def _body(schema: JSON, holder: JSON) -> list[Field]:
    shape = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return list(_fields(schema, shape, "", DEPTH))


def _fields(schema: JSON, shape: JSON, prefix: str, depth: int) -> Iterator[Field]:
    shape = _resolved(schema, shape)
    if shape.get("type") == "array":
        yield from _fields(schema, shape["items"], f"{prefix}[]", depth)
        return
    required = shape.get("required", ())
    for name, given in shape.get("properties", {}).items():
        path = f"{prefix}.{name}" if prefix else name
        about = _prose(_about(schema, given))
        yield Field(path, _type(schema, given), about, name in required)
        if depth:
            yield from _fields(schema, given, path, depth - 1)


def _resolved(schema: JSON, shape: JSON) -> JSON:
    """Return a shape without references, and without the null that it may be instead."""
    if "$ref" in shape:
        return _resolved(schema, schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]])
    for choice in ("allOf", "anyOf"):
        chosen = [each for each in shape.get(choice, ()) if each.get("type") != "null"]
        if len(chosen) == 1:
            return _resolved(schema, chosen[0])
    return shape


def _type(schema: JSON, shape: JSON) -> str:
    found = _resolved(schema, shape)
    kind = str(found.get("format") or found.get("type") or "any")
    if found.get("type") == "array":
        kind = f"list of {_type(schema, found['items'])}"
    is_nullable = any(each.get("type") == "null" for each in shape.get("anyOf", ()))
    return f"{kind} or null" if is_nullable else kind


def _about(schema: JSON, shape: JSON) -> str:
    """Return what is written about a field, which values it has, and its bounds."""
    found = _resolved(schema, shape)
    words = [shape.get("description") or found.get("description", "")]
    if values := found.get("enum") or ([found["const"]] if "const" in found else []):
        words.append("One of " + ", ".join(f"`{value}`" for value in values) + ".")
    words += [_between(found, *bound) for bound in BOUNDS]
    default = shape.get("default")
    if isinstance(default, bool | int | float) or (isinstance(default, str) and default):
        words.append(f"Default: `{json.dumps(default).strip(QUOTE)}`.")
    return " ".join(filter(None, words))


def _between(shape: JSON, low: str, high: str, unit: str) -> str:
    """Return the bounds of a number or a length as words; "" if there are none."""
    least, most = shape.get(low), shape.get(high)
    if most is not None and most >= COUNTLESS:
        most = None
    counted = most if most is not None else least
    units = f" {unit}{'' if counted == 1 else 's'}" if unit else ""
    if least and most is not None:
        return f"{least:,} to {most:,}{units}."
    if most is not None:
        return f"At most {most:,}{units}."
    return f"At least {least:,}{units}." if least else ""


def _prose(text: str) -> SafeString:
    """Return text as HTML in which `names` are code."""
    parts = " ".join(text.split()).split("`")
    marked = (
        format_html("<code>{}</code>" if at % 2 else "{}", part) for at, part in enumerate(parts)
    )
    return format_html_join("", "{}", ((part,) for part in marked))
