"""Which numbers of which chats one socket has been sent. Pure.

It tells a late retry from an edit back: a content that was edited away is meant again only by who
has seen what stands instead (ADR 0043).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from chats.ranges import Range, Ranges

MAX_CHATS: Final = 100
"""Those that the socket was sent something of last. Of others it counts as having seen nothing."""


class Knowledge:
    """What was written to one socket, by chat: pushes, pages, and answers to its own sends."""

    __slots__ = ("_chats",)

    def __init__(self) -> None:
        self._chats: OrderedDict[str, Ranges] = OrderedDict()

    def learn(self, chat_id: str, first: int, last: int) -> None:
        """Note that the socket was sent a range, both ends included; an empty one is nothing."""
        if last < first:
            return
        known = self._chats.get(chat_id)
        if known is None:
            known = self._chats[chat_id] = Ranges()
            if len(self._chats) > MAX_CHATS:
                self._chats.popitem(last=False)
        else:
            self._chats.move_to_end(chat_id)
        known.add(first, last)

    def of(self, chat_id: str) -> list[Range]:
        """Return what is known of a chat, ascending."""
        known = self._chats.get(chat_id)
        return list(known) if known is not None else []
