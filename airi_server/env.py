"""Read the environment once, by type, and refuse to boot on a value we cannot read.

Every reader records what it was asked for in `READ`, so that a test can hold
docs/settings.md to the truth.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable as the code reads it; `default` None means required."""

    name: str
    kind: str
    default: str | None


READ: Final[dict[str, Variable]] = {}


def text(name: str, default: str | None = None) -> str:
    """Return a setting, or its `_FILE` twin's content (for mounted secrets)."""
    READ[name] = Variable(name, "text", default)
    if file := os.environ.get(f"{name}_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"{name} is required")
    return value


def word(name: str, default: str) -> str:
    """Return at most 40 ASCII letters, digits, dots, dashes and underscores."""
    value = text(name, default)
    if not re.fullmatch(r"[\w.-]{0,40}", value, re.ASCII):
        raise ImproperlyConfigured(f"{name} may have 40 ASCII letters, digits, dots and dashes")
    return value


def flag(name: str, *, default: bool) -> bool:
    """Return a boolean spelled exactly `true` or `false`."""
    READ[name] = Variable(name, "true|false", str(default).lower())
    value = os.environ.get(name, str(default).lower())
    if value not in ("true", "false"):
        raise ImproperlyConfigured(f"{name} must be 'true' or 'false', not {value!r}")
    return value == "true"


def integer(name: str, *, default: int, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    READ[name] = Variable(name, f"integer {minimum}..{maximum}", str(default))
    try:
        value = int(os.environ.get(name, default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a whole number") from error
    if not minimum <= value <= maximum:
        raise ImproperlyConfigured(f"{name} must lie in {minimum}..{maximum}, not {value}")
    return value


def ratio(name: str, *, default: float) -> float:
    """Return a number from 0 to 1."""
    READ[name] = Variable(name, "number 0..1", str(default))
    try:
        value = float(os.environ.get(name, default))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a number") from error
    if not 0 <= value <= 1:
        raise ImproperlyConfigured(f"{name} must lie in 0..1, not {value}")
    return value


def words(name: str) -> list[str]:
    """Return a comma-separated list without its blanks; unset is empty."""
    READ[name] = Variable(name, "comma-separated list", "")
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


def origins(name: str) -> list[str]:
    """Return a comma-separated list of URLs, each cut down to scheme, host and port."""
    normalized = []
    for word in words(name):
        parts = urlsplit(word)
        if not parts.scheme or not parts.netloc:
            raise ImproperlyConfigured(f"{name}: {word!r} is not a URL")
        normalized.append(f"{parts.scheme}://{parts.netloc}".lower())
    return list(dict.fromkeys(normalized))


def url(name: str, default: str | None = None, *, schemes: tuple[str, ...]) -> str:
    value = text(name, default)
    if value and urlsplit(value).scheme not in schemes:
        raise ImproperlyConfigured(f"{name} must start with one of {', '.join(schemes)}")
    return value
