"""The provider's own words, as a failed attempt keeps them for operators: redacted, 500 characters.

They go onto the request's row and into what is said of a key's health, so they hold no secret and
nothing of what the caller wrote: reading that is a permission of its own. What goes back to the
caller is `provider_errors.fault`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any, Final

from llmrouter.routing.provider_errors import MAX_MESSAGE, cleaned, decoded, is_markup, message_of

MAX_PAGE_BYTES: Final = 8_192
"""Of a proxy's page: what it says stands at its beginning."""
SHORTEST_SECRET: Final = 8
"""A word of the header that is at least so long is, or has in it, the key."""
WINDOW: Final = 24
"""Any quotation of half as much again has a window of this length in it; shorter ones stay."""
_HIDDEN: Final = frozenset({"script", "style", "template", "noscript"})


def kept(
    body: bytes,
    headers: Mapping[str, str],
    *,
    request: str,
    authorization: str,
    is_error: bool = True,
) -> str:
    """Return what a body says of why it is no answer, "" if nothing.

    Args:
        body: Its beginning: JSON of any shape, a page, text, or an event of a stream.
        headers: Of the answer, names in lower case.
        request: What the caller wrote, as JSON.
        authorization: The header it was asked with: providers quote it.
        is_error: Whether the status says so. Otherwise JSON without an error is left out: it may
            be a piece of an answer.
    """
    said = decoded(body)
    if is_markup(body, headers):
        words = _of_page(body)
    elif isinstance(said, dict | list):
        words = message_of(said) or (_raw(body) if is_error and said else "")
    else:
        words = _raw(body)
    return of_text(words, request=request, authorization=authorization)


def of_error(error: Any, *, request: str, authorization: str) -> str:
    """Return what an error object says, as `kept` does of a body."""
    return of_text(message_of(error), request=request, authorization=authorization)


def of_text(words: str, *, request: str, authorization: str) -> str:
    """Return words without the key they were asked with and without what they quote."""
    for word in authorization.split():
        if len(word) >= SHORTEST_SECRET:
            words = words.replace(word, "…")
    return without_quotations(cleaned(words), request)


def without_quotations(words: str, request: str) -> str:
    """Return words with every longer piece that stands in the request left out.

    A request may be long, and this runs while others wait: it is searched for one window in twelve
    characters, and what is found is extended from there.
    """
    if len(words) < WINDOW:
        return words
    written = request.replace("\\n", " ").replace('\\"', '"')
    parts, start, place = [], 0, 0
    while place + WINDOW <= len(words):
        found = written.find(words[place : place + WINDOW])
        if found < 0:
            place += WINDOW // 2
            continue
        left, right = _extent(words, written, place, found)
        parts.append(words[start : max(start, left)])
        start = place = right
    return "…".join([*parts, words[start:]])


def _extent(words: str, written: str, place: int, found: int) -> tuple[int, int]:
    """Return where the piece that is the same in both begins and ends in the words."""
    left, shift = place, found - place
    while left > 0 and left + shift > 0 and words[left - 1] == written[left + shift - 1]:
        left -= 1
    right = place + WINDOW
    while (
        right < len(words)
        and right + shift < len(written)
        and words[right] == written[right + shift]
    ):
        right += 1
    return left, right


def _raw(body: bytes) -> str:
    return cleaned(body[: 4 * MAX_MESSAGE].decode("utf-8", "replace"))


def _of_page(body: bytes) -> str:
    """Return the text of a page: its title and what a person would read."""
    reader = _PageText()
    reader.feed(body[:MAX_PAGE_BYTES].decode("utf-8", "replace"))
    return cleaned(" ".join(" ".join(reader.found).split()))


class _PageText(HTMLParser):
    """Collects the text of a page; one that is cut off, or no page, is read as far as it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _HIDDEN

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)
