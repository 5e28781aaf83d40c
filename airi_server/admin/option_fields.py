"""Form fields for settings, made from the annotation that validates them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import orjson
from django import forms

from airi_server.runtime import options
from airi_server.runtime.options import Option

MAX_JSON: Final = 65_536
NUL: Final = b"\\u0000"


class JSONText(forms.CharField):
    """JSON in a text area; what PostgreSQL cannot store is refused here."""

    widget = forms.Textarea(attrs={"rows": 10, "spellcheck": "false"})

    def __init__(self, **named: Any) -> None:
        super().__init__(max_length=MAX_JSON, **named)

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return text
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as malformed:
            raise forms.ValidationError(f"This is not JSON: {malformed}") from None
        if NUL in orjson.dumps(found):
            raise forms.ValidationError("Text may not contain NUL.")
        return found

    def validate(self, value: Any) -> None:
        """Let an empty object or list be a value."""
        if value in (None, ""):
            super().validate(value)

    def run_validators(self, value: Any) -> None:
        """Leave lengths and ranges to the setting: the text was bounded when it was read."""


class Number(forms.DecimalField):
    """A decimal that is written as it was typed."""

    def clean(self, value: Any) -> Any:
        exact = super().clean(value)
        if exact is None:
            return None
        return int(exact) if exact == exact.to_integral_value() else float(exact)


def field_of(option: Option[Any]) -> forms.Field:
    """Return the field that edits this setting, with its bounds."""
    schema = option.adapter.json_schema()
    help_text = _hint(option, schema)
    bounds: Any = {"min_value": schema.get("minimum"), "max_value": schema.get("maximum")}
    kind = schema.get("type")
    if kind == "integer":
        return forms.IntegerField(label="Value", help_text=help_text, **bounds)
    if kind == "number":
        return Number(label="Value", help_text=help_text, max_digits=20, decimal_places=6, **bounds)
    if kind == "boolean":
        return forms.BooleanField(label="On", help_text=help_text, required=False)
    if kind == "string":
        lengths: Any = {
            "min_length": schema.get("minLength"),
            "max_length": schema.get("maxLength"),
        }
        return forms.CharField(label="Value", help_text=help_text, **lengths)
    return JSONText(label="Value (JSON)", help_text=help_text)


def initial_of(option: Option[Any], value: Any) -> Any:
    """Return what the field begins with: JSON as text that can be edited."""
    if value is options.UNSET:
        return None
    if isinstance(field_of(option), JSONText):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return value


def range_of(option: Option[Any]) -> str:
    """Say what values are allowed, in a few words; empty if the schema has to say it."""
    schema = option.adapter.json_schema()
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    if schema.get("type") == "string" and "maxLength" in schema:
        return f"{schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return ""


def shape_of(option: Option[Any]) -> str:
    """Return the JSON Schema of a setting that is edited as JSON, else nothing."""
    if not isinstance(field_of(option), JSONText):
        return ""
    return orjson.dumps(option.adapter.json_schema(), option=orjson.OPT_INDENT_2).decode()


def shown(option: Option[Any], value: Any) -> str:
    """Write a value for people, as JSON; secrets as their length."""
    if value is options.UNSET:
        return "not set"
    if isinstance(value, Decimal):
        return str(value)
    safe = option.shown(value) if option.shown else value
    return orjson.dumps(safe, default=str).decode()


def _hint(option: Option[Any], schema: dict[str, Any]) -> str:
    parts = [range_of(option)]
    if schema.get("type") == "number":
        parts.append("up to six decimals")
    parts.append(f"default: {shown(option, option.default)}")
    hint = "; ".join(part for part in parts if part)
    return f"{hint[0].upper()}{hint[1:]}."
