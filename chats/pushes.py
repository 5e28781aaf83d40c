"""What of a page is pushed to whom: neighboring events share a frame, and it is written once. Pure.

A busy chat gets fewer and longer frames instead of more of them, which is what a push costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from chats import envelopes
from chats.events import Sent
from chats.messages import Page
from chats.protocol import NewMessages

Range = tuple[int, int]


class Pushes:
    """The frames of one page, each written for the first who gets it.

    Args:
        first: The number the page begins with; it ends with its own.
    """

    def __init__(self, chat_id: str, first: int, page: Page) -> None:
        self._chat_id = chat_id
        self._first = first
        self._page = page
        self._texts: dict[Range, str | None] = {}

    def of(self, ranges: Iterable[Range]) -> Iterator[str]:
        """Yield a frame for each range that has something in the page.

        What was numbered again since is not there; its own event brings it.
        """
        for wanted in ranges:
            if wanted not in self._texts:
                self._texts[wanted] = self._written(*wanted)
            text = self._texts[wanted]
            if text is not None:
                yield text

    def _written(self, first: int, last: int) -> str | None:
        first, last = max(first, self._first), min(last, self._page.seq)
        new = tuple(row for row in self._page.messages if first <= row.seq <= last)
        gone = tuple(row for row in self._page.deleted if first <= row.seq <= last)
        if not new and not gone:
            return None
        body = {
            "chat_id": self._chat_id,
            "messages": new,
            "from_seq": first,
            "to_seq": last,
            "deleted": gone,
        }
        return envelopes.push(NewMessages.model_validate(body))


def runs(events: Sequence[Sent]) -> Iterator[list[Sent]]:
    """Yield events of one chat, ascending, in groups without a gap that have the same members."""
    run: list[Sent] = []
    for event in events:
        if run and (event.from_seq != run[-1].to_seq + 1 or event.members != run[-1].members):
            yield run
            run = []
        run.append(event)
    if run:
        yield run


def ranges_for(run: Sequence[Sent], socket_id: str) -> list[Range]:
    """Return what one socket is to get of a run: all of it but what it has sent itself."""
    ranges: list[Range] = []
    for event in run:
        if event.origin == socket_id:
            continue
        if ranges and ranges[-1][1] + 1 == event.from_seq:
            ranges[-1] = (ranges[-1][0], event.to_seq)
        else:
            ranges.append((event.from_seq, event.to_seq))
    return ranges
