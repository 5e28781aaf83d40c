"""Validation errors in words about the fields: pydantic's and orjson's.

Neither the value at fault nor a class of ours is ever named; what a client made up is shortened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

Detail = dict[str, str]
Step = int | str

MAX_FAULTS: Final = 20
MAX_TOLD: Final = 3
"""As many faults are in the sentence; the others are in the details."""
MAX_STEP: Final = 200
"""As long as the longest name there may be, which is a model's."""
MAX_MESSAGE: Final = 300
_INTERNAL: Final = re.compile(r"[a-z_-]+\[.*\]")
"""A step that is pydantic's and no field: the validator or the branch of a union it was in."""
_OBJECT: Final = "must be an object"
_WHOLE: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_TIME: Final = "must be a time in ISO 8601, such as 2030-01-31T12:00:00Z"
_WORDS: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "none_required": "must be null",
    "string_type": "must be a string",
    "string_unicode": "must not contain halves of surrogate pairs",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dataclass_type": _OBJECT,
    "mapping_type": _OBJECT,
    "union_tag_not_found": "must have the field {discriminator}",
    "union_tag_invalid": "must have in its field {discriminator} one of {expected_tags}",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "timezone_aware": "must have an offset, like 2030-01-31T12:00:00Z",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "url_type": "must be a URL",
    "url_parsing": "must be a URL",
}


def details_of(faults: Iterable[Mapping[str, Any]], *, skip: int = 0) -> list[Detail]:
    """Return path and message of the first faults.

    Args:
        faults: As `pydantic.ValidationError.errors` returns them.
        skip: How many steps of each path are none of the request's.
    """
    return [
        {"path": ".".join(map(str, fields_of(fault["loc"][skip:]))), "message": message_of(fault)}
        for fault in islice(faults, MAX_FAULTS)
    ]


def message_of(fault: Mapping[str, Any]) -> str:
    """Return what is expected where this fault is; it reads on from the field's name."""
    given: str = fault["msg"]
    if fault["type"] in ("value_error", "assertion_error"):
        return given.partition(", ")[2][:MAX_MESSAGE]
    words = _WORDS.get(fault["type"])
    if words is None:
        return given.replace("Input should be", "must be")[:MAX_MESSAGE]
    said = words.format_map(_Context(fault.get("ctx") or {}))
    return re.sub(r"\b1 (character|item)s$", r"1 \1", said)


def fields_of(loc: Iterable[Step]) -> list[Step]:
    """Return where a fault is: fields by name, items by number."""
    return [
        shown(step) if isinstance(step, str) else step
        for step in loc
        if not (isinstance(step, str) and _INTERNAL.fullmatch(step))
    ]


def sentence(details: list[Detail]) -> str:
    """Return faults as people read them: `messages[2].content must be a string`."""
    told = [_told(each) for each in details[:MAX_TOLD]]
    if len(details) > MAX_TOLD:
        told.append(f"and {len(details) - MAX_TOLD} more")
    return f"The request is not valid: {'; '.join(told)}."


def as_sentence(detail: Detail) -> str:
    """Return a fault as a form shows it, at its field."""
    return detail["message"][:1].upper() + detail["message"][1:].removesuffix(".") + "."


def shown(name: str) -> str:
    """Return a name that a client made up as an answer or a log may repeat it."""
    kept = "".join(each if each.isprintable() else "?" for each in name[:MAX_STEP])
    return f"{kept}…" if len(name) > MAX_STEP else kept


def malformed_json(error: json.JSONDecodeError, raw: bytes) -> str:
    """Return what keeps a body from being JSON, and where; nothing of it is quoted."""
    if not raw:
        return "The body must be JSON: it is empty."
    try:
        raw.decode()
    except UnicodeDecodeError as undecodable:
        return f"The body must be JSON: it is not UTF-8 (byte {undecodable.start + 1})."
    where = f"line {error.lineno}, column {error.colno}, character {error.pos + 1}"
    return f"The body must be JSON: {error.msg.partition(': line ')[0]} ({where})."


def _told(detail: Detail) -> str:
    path = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", detail["path"]) or "the body"
    message = detail["message"].removesuffix(".")
    return f"{path} {message}" if message[:1].islower() else f"{path}: {message}"


class _Context(dict[str, Any]):
    """What pydantic says beside a fault; what it leaves out is left open."""

    def __missing__(self, key: str) -> str:
        return "…"
