"""Lists of addresses as people paste them, read to the last word or refused with what is wrong.

A list is lines of addresses (`Ann <ann@x.io>; bob@x.io`), or a table whose first line names its
columns (`name,email,amount`). Nothing is left out without a word: what cannot be read is a
`Mistake` with its line, and columns that are not used are named.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from billing.grants import MAX_AMOUNT, Named

MAX_EMAIL: Final = 254
MAX_PARTS: Final = 1_000
"""Addresses and mistakes after which a list is not read on: nobody is paid by it anyway."""
SHOWN: Final = 60
"""Characters of a mistake that are repeated."""
PLAIN: Final[dict[int, str]] = {
    # Full-width forms of ASCII, one for one.
    **{0xFF01 + offset: chr(0x21 + offset) for offset in range(94)},
    **dict.fromkeys(map(ord, "\u3001\uff64\u060c"), ","),
    **dict.fromkeys(map(ord, "\u00a0\u1680\u2007\u202f\u205f\u3000\v\f"), " "),
    **dict.fromkeys(range(0x2000, 0x200B), " "),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"'),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032"), "'"),
    **dict.fromkeys(map(ord, "\u3008\u300a\u2039"), "<"),
    **dict.fromkeys(map(ord, "\u3009\u300b\u203a"), ">"),
}
"""What stands for a sign of ASCII and is as long: separators, spaces, quotes and brackets."""
BLANK: Final = frozenset(
    map(chr, [0x034F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)])
)
"""Signs that look like nothing without being spaces or format characters."""
TOKENS: Final = re.compile(r'"[^"]*"|<[^<>]*>|[,;\t]|[^",;\t<>]+|.')
SEPARATORS: Final = (",", ";", "\t")
LINK: Final = "mailto:"
AROUND: Final = "()[]{}<>\"'"
SPLIT: Final = re.compile(r"[\s,;]+")
AMOUNT: Final = re.compile(r"[0-9]{1,12}")
COLUMNS: Final = {
    "email": (
        "email address", "e-mail address", "email", "e-mail", "mail", "address",
        "邮箱", "邮箱地址", "电子邮件", "电子邮箱", "邮件",
    ),
    "amount": ("amount", "flux", "credits", "数量", "金额", "额度"),
}  # fmt: skip
"""Names of columns that are read, in any case; the first of them counts most."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What cannot be read, where, and why: `line` counts from 1."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Found:
    """An address with its place: as it was pasted, and the amount beside it, if there is one."""

    line: int
    email: str
    pasted: str
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class AddressList:
    """What a list says. `unused` are the names of columns that nothing was read from."""

    found: tuple[Found, ...]
    mistakes: tuple[Mistake, ...]
    unused: tuple[str, ...] = ()

    @property
    def has_amounts(self) -> bool:
        return any(each.amount is not None for each in self.found)

    def people(self, amount: int | None) -> tuple[Named, ...]:
        """Return whom to pay what: the amount on their line, or else the one for everybody."""
        return tuple(
            Named(each.email, each.amount or amount or 0, each.pasted) for each in self.found
        )


class UnreadablePart(Exception):
    """A part of a line that is no address, with what to say of it."""


def read(text: str) -> AddressList:
    """Read a list; `found` is in its order."""
    lines = [
        (number, raw)
        for number, raw in enumerate(text.splitlines(), 1)
        if SPLIT.sub("", _bare(raw))
    ]
    table = _Table.of(lines[0][1]) if lines else None
    found: list[Found] = []
    mistakes: list[Mistake] = []
    for number, raw in lines[1:] if table else lines:
        try:
            found += table.row(number, raw) if table else _of_line(number, raw)
        except UnreadablePart as wrong:
            mistakes += [Mistake(number, str(why)) for why in wrong.args]
        if len(found) + len(mistakes) > MAX_PARTS:
            mistakes.append(Mistake(number, "This is too much: the rest was not looked at."))
            break
    return AddressList(tuple(found), tuple(mistakes), table.unused if table else ())


def visible(text: str) -> str:
    """Return a text in which every character can be seen, cut to what is worth repeating."""
    shown = "".join(
        each if each.isprintable() and each not in BLANK else f"⟨U+{ord(each):04X}⟩"
        for each in text
    )
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


@dataclass(frozen=True, slots=True)
class _Table:
    """A table with a first line that names its columns."""

    delimiter: str
    width: int
    email: int
    amount: int | None
    unused: tuple[str, ...]

    @classmethod
    def of(cls, raw: str) -> _Table | None:
        """Return the table that this line is the head of; None if it is no such head."""
        plain = _bare(raw)
        if "@" in plain:
            return None
        delimiter = next((each for each in "\t;," if each in plain), ",")
        names = [each.strip().strip("\"'") for each in _cells(plain, delimiter)]
        places = {kind: _place(names, known) for kind, known in COLUMNS.items()}
        if places["email"] is None:
            return None
        used = set(places.values())
        unused = tuple(name or "?" for place, name in enumerate(names) if place not in used)
        return cls(delimiter, len(names), places["email"], places["amount"], unused)

    def row(self, number: int, raw: str) -> list[Found]:
        cells = _cells(raw.translate(PLAIN), self.delimiter)
        if len(cells) != self.width:
            raise UnreadablePart(
                f"has {len(cells)} columns, and the first line names {self.width}: {_said(raw)}."
            )
        if not _bare(cells[self.email]):
            raise UnreadablePart(f"has no e-mail address: {_said(raw)}.")
        found = _of_line(number, cells[self.email], counts=False)
        if len(found) > 1:
            raise UnreadablePart(f"has more than one address in its column: {_said(raw)}.")
        amount = None if self.amount is None else _amount(_bare(cells[self.amount]))
        return [Found(number, found[0].email, found[0].pasted, amount)]


def _place(names: list[str], known: tuple[str, ...]) -> int | None:
    """Return which column has one of the names."""
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in known if name in lower), None)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _of_line(number: int, raw: str, *, counts: bool = True) -> list[Found]:
    """Return the addresses of a line; with `counts`, a number beside a single one is its amount.

    Raises:
        Unreadable: With each part that is neither.
    """
    found: list[Found] = []
    wrong: list[str] = []
    words: list[str] = []
    for pasted, name, address in islice(_mailboxes(raw, words), MAX_PARTS + 1):
        try:
            found.append(Found(number, _address(address, name), pasted.strip()))
        except UnreadablePart as why:
            wrong += why.args
    if counts and len(found) == len(words) == 1 and not wrong and AMOUNT.fullmatch(words[0]):
        one = found[0]
        return [Found(number, one.email, _shortened(raw), _amount(words[0]))]
    wrong += [f"This is not an e-mail address: {_said(word)}." for word in words[: MAX_PARTS + 1]]
    if wrong:
        raise UnreadablePart(*wrong)
    return found


def _mailboxes(raw: str, words: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each address of a line with how it was pasted and the name before it.

    A comma may be part of a name (`Smith, Ann <ann@x.io>`): words without an @ wait for a bracket.
    Those that wait in vain are added to `words`.
    """
    start, pending, has_at = 0, list[str](), False
    for token in TOKENS.finditer(raw.translate(PLAIN)):
        text = token.group()
        if text.startswith("<") and len(text) > 1:
            yield raw[start : token.end()], _bare("".join(pending)), text[1:-1]
        elif text in SEPARATORS and (text != "," or has_at or not pending):
            yield from _loose(raw[start : token.start()], "".join(pending), words)
        else:
            pending.append(text)
            has_at = has_at or "@" in text
            continue
        start, pending, has_at = token.end(), [], False
    yield from _loose(raw[start:], "".join(pending), words)


def _loose(pasted: str, text: str, words: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the addresses of a text without brackets; its other words are added to `words`."""
    parts = [part for part in SPLIT.split(text.replace('"', " ")) if _bare(part)]
    for part in parts:
        if "@" in part or _bare(part)[:7].lower() == LINK:
            yield (pasted if len(parts) == 1 else part), "", part
        else:
            words.append(_bare(part))


def _address(text: str, name: str = "") -> str:
    """Return the address that a text is, without what mail programs put around it.

    Raises:
        Unreadable: It is none, or the name beside it is another address.
    """
    plain = _bare(text)
    if plain[:7].lower() == LINK:
        plain = _of_link(plain)
    if plain[:1] == plain[-1:] == "'":
        plain = plain[1:-1]
    # A name may repeat the address; one that is another address names two people.
    others = {part.strip(AROUND).lower() for part in SPLIT.split(name) if "@" in part}
    if others - {plain.lower()}:
        raise UnreadablePart(f"Which of the two is meant: {_said(name)} or {_said(plain)}?")
    try:
        validate_email(plain)
    except ValidationError:
        raise UnreadablePart(f"This is not an e-mail address: {_said(text)}.") from None
    if len(plain) > MAX_EMAIL:
        raise UnreadablePart(f"Longer than {MAX_EMAIL} characters: {_said(plain)}.")
    return plain


def _of_link(text: str) -> str:
    """Return the address of a `mailto:` link; its subject and body are nobody's address."""
    link = urlsplit(text)
    if "@" in unquote(link.query):
        raise UnreadablePart(f"This link is to more than one address: {_said(text)}.")
    return unquote(link.path)


def _amount(text: str) -> int:
    if not AMOUNT.fullmatch(text) or not 1 <= int(text) <= MAX_AMOUNT:
        said = _said(text) if text else "nothing"
        raise UnreadablePart(
            f"The amount has to be a whole number from 1 to {MAX_AMOUNT:,}: {said}."
        )
    return int(text)


def _bare(text: str) -> str:
    """Return a text as it looks: without invisible characters, and signs of ASCII for their like.

    What goes are zero-width signs, marks of order and direction, soft hyphens and the like: what
    nobody can see cannot tell two addresses apart for whoever pasted them.
    """
    return "".join(each for each in text.translate(PLAIN) if not _is_invisible(each)).strip()


def _is_invisible(sign: str) -> bool:
    return sign in BLANK or unicodedata.category(sign) == "Cf"


def _said(text: str) -> str:
    return visible(text.strip())


def _shortened(text: str) -> str:
    return text.strip()[: MAX_EMAIL * 2]
