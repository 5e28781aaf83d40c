"""Read the environment once, by type, and refuse to boot on a value we cannot read.

A refusal is one line for whoever set the variable: its name, its value unless that is a secret,
what is wrong, and what to do. Every reader records what it was asked for in `READ`, so that a test
can hold docs/settings.md to the truth.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable as the code reads it; `default` None means required."""

    name: str
    kind: str
    default: str | None


READ: Final[dict[str, Variable]] = {}
_DATABASE: Final = "postgresql://user:password@host:port/database"
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class InvalidVariable(ImproperlyConfigured):
    """A variable is missing or its value cannot be used."""

    def __init__(self, name: str, wrong: str, remedy: str) -> None:
        super().__init__(f"{name} {wrong}. {remedy}.")


def text(name: str, default: str | None = None) -> str:
    """Return a setting, or its `_FILE` twin's content (for mounted secrets).

    Raises:
        InvalidVariable: It is required and not there, or the file cannot be read.
    """
    READ[name] = Variable(name, "text", default)
    if file := os.environ.get(f"{name}_FILE"):
        return _content(f"{name}_FILE", file, name)
    value = os.environ.get(name, default)
    if value is None or (default is None and not value.strip()):
        remedy = f"Set it, or {name}_FILE to the path of a file with it (docs/settings.md)"
        raise InvalidVariable(name, "is not set", f"{remedy}; on a laptop ./run sets it")
    return value


def _content(variable: str, path: str, instead: str) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except OSError as unreadable:
        wrong = f"is {path!r}: {unreadable.strerror}"
    except UnicodeDecodeError:
        wrong = f"is {path!r}, which is not text in UTF-8"
    else:
        if content:
            return content
        wrong = f"is {path!r}, which is empty"
    raise InvalidVariable(variable, wrong, f"Correct the file, or unset it and set {instead}")


def word(name: str, default: str) -> str:
    """Return at most 40 ASCII letters, digits, dots, dashes and underscores."""
    value = text(name, default)
    if not re.fullmatch(r"[\w.-]{0,40}", value, re.ASCII):
        raise InvalidVariable(
            name,
            f"is {value!r}",
            "It may have 40 ASCII letters, digits, dots, dashes and underscores",
        )
    return value


def key(name: str, default: str | None = None, *, size: int) -> str:
    """Return the base64 of exactly `size` bytes, or an empty text where that is the default."""
    value = text(name, default)
    try:
        given = len(base64.b64decode(value, validate=True))
    except (ValueError, binascii.Error):
        given = -1
    if value != default and given != size:
        has = "is not base64" if given < 0 else f"has {given} bytes"
        remedy = f"Make one with: openssl rand -base64 {size}"
        # `from None`: what was decoded is the secret.
        raise InvalidVariable(
            name, f"{has}; it is base64 of exactly {size} bytes", remedy
        ) from None
    return value


def choice(name: str, default: str, *, among: Sequence[str]) -> str:
    """Return one of several words, however its letters are written."""
    value = text(name, default)
    found = next((each for each in among if each.lower() == value.strip().lower()), None)
    if found is None:
        given = f"is {value!r}, which is none of {', '.join(among)}"
        raise InvalidVariable(name, given, _or_unset("Set it to one of them", default))
    return found


def level(name: str, default: str) -> str:
    """Return a level of the log."""
    return choice(name, default, among=_LEVELS)


def flag(name: str, *, default: bool) -> bool:
    """Return a boolean spelled exactly `true` or `false`."""
    usual = str(default).lower()
    READ[name] = Variable(name, "true|false", usual)
    value = os.environ.get(name, usual)
    if value not in ("true", "false"):
        wrong = f"is {value!r}, which is neither true nor false"
        raise InvalidVariable(name, wrong, _or_unset("Set it to one of them", usual))
    return value == "true"


def integer(name: str, *, default: int, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    READ[name] = Variable(name, f"integer {minimum}..{maximum}", str(default))
    given = os.environ.get(name, str(default))
    try:
        value = int(given)
    except ValueError:
        value = minimum - 1
    if not minimum <= value <= maximum:
        wrong = f"is {given!r}, which is no whole number from {minimum} to {maximum}"
        raise InvalidVariable(name, wrong, _or_unset("Set it to one", str(default)))
    return value


def ratio(name: str, *, default: float) -> float:
    """Return a number from 0 to 1."""
    READ[name] = Variable(name, "number 0..1", str(default))
    given = os.environ.get(name, str(default))
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        wrong = f"is {given!r}, which is no number from 0 to 1"
        raise InvalidVariable(name, wrong, _or_unset("Set it to one", str(default)))
    return value


def _or_unset(remedy: str, default: str) -> str:
    return f"{remedy}, or unset it for {default}"


def words(name: str) -> list[str]:
    """Return a comma-separated list without its blanks; unset is empty."""
    READ[name] = Variable(name, "comma-separated list", "")
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


def origins(name: str, *, wildcard: bool = False) -> list[str]:
    """Return a comma-separated list of URLs, each cut down to scheme, host and port.

    With `wildcard` the list may be `*` instead, which stands for all.
    """
    normalized = []
    given = words(name)
    if wildcard and given == ["*"]:
        return given
    for word in given:
        try:
            parts = urlsplit(word)
        except ValueError:  # half of the brackets around an IPv6 address
            parts = urlsplit("")
        if not parts.scheme or not parts.netloc:
            remedy = "Write scheme and host, such as https://app.example.com"
            raise InvalidVariable(name, f"contains {word!r}, which is not a URL", remedy)
        normalized.append(f"{parts.scheme}://{parts.netloc}".lower())
    return list(dict.fromkeys(normalized))


def url(name: str, default: str | None = None, *, schemes: tuple[str, ...]) -> str:
    """Return a URL with one of these schemes and a host, or an empty text where that is allowed."""
    value = text(name, default)
    if value and (wrong := _fault_of_url(value, schemes)):
        example = _DATABASE if "postgresql" in schemes else f"{schemes[0]}://host:port"
        remedy = f"Write it as {example}, and # or @ of a password as %23 or %40"
        raise InvalidVariable(name, f"is {without_secrets(value)!r}: {wrong}", remedy)
    return value


def _fault_of_url(value: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(value)
    except ValueError:
        return "it has half of a pair of brackets"
    if parts.scheme not in schemes:
        return f"it has to begin with {' or '.join(f'{each}://' for each in schemes)}"
    # PostgreSQL may have several hosts, each with a port.
    ports = re.findall(r":([^:,\]]*)(?=,|$)", parts.netloc.rpartition("@")[2])
    if not all(_is_port(port) for port in ports):
        return "its port is no number from 1 to 65535"
    # PostgreSQL may be reached through a socket of the file system, or have its hosts elsewhere.
    needs_host = "postgresql" not in schemes
    return "it names no host" if needs_host and not parts.hostname else None


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535)


def without_secrets(url: str) -> str:
    """Return a URL without its user and password, also one that cannot be parsed."""
    nameless = re.sub(r"^([\w+.-]*://)?.*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"(\w*pass\w*=)[^&#]*", r"\1***", nameless)


def database_url(name: str) -> str:
    """Return the URL of a PostgreSQL database, as libpq can read it."""
    value = url(name, schemes=("postgresql", "postgres"))
    wrong = ""
    try:
        given = conninfo_to_dict(value)
    except psycopg.ProgrammingError as unreadable:
        # What else libpq says may quote the password.
        named = re.search(r'query parameter: "\w+"', str(unreadable))
        wrong = f"it has an unknown {named[0]}" if named else "PostgreSQL's library cannot read it"
    else:
        if not {"dbname", "service"} & set(given):
            wrong = "it names no database"
    if wrong:
        remedy = f"Write it as {_DATABASE}, and # or @ of a password as %23 or %40"
        raise InvalidVariable(name, f"is {without_secrets(value)!r}: {wrong}", remedy)
    return value
