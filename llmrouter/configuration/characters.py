"""Invisible characters in pasted text, and what a refusal calls them."""

from __future__ import annotations

import unicodedata
from typing import Final

_CONTROLS: Final = {
    0x00: "NULL",
    0x09: "TAB",
    0x0A: "LINE FEED",
    0x0D: "CARRIAGE RETURN",
    0x1B: "ESCAPE",
    0x7F: "DELETE",
    0x85: "NEXT LINE",
}
_WITHOUT_INK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Fillers and blanks that Unicode counts as letters, marks or symbols."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
"""Categories: controls, format characters, what is no character, separators."""


def name_of(character: str) -> str:
    """Return the code point and the name of a character: `U+200B ZERO WIDTH SPACE`."""
    code = ord(character)
    name = _CONTROLS.get(code) or unicodedata.name(character, "")
    return f"U+{code:04X} {name or 'a character without a name'}"


def is_invisible(character: str) -> bool:
    """Return whether nobody can see it. The plain space between words does not count."""
    if "!" <= character <= "~" or character == " ":
        return False
    return (
        character in _WITHOUT_INK
        or unicodedata.category(character) in _UNSEEN
        or "\ufe00" <= character <= "\ufe0f"
        or "\u180b" <= character <= "\u180f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def invisible_in(text: str) -> str | None:
    """Say which character of a text cannot be seen, and where; None if all can."""
    for position, character in enumerate(text, start=1):
        if is_invisible(character):
            return f"{name_of(character)} at character {position}"
    return None
