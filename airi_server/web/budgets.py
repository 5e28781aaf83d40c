"""Memory budgets of request bodies: for each key, and for the process.

Only long bodies are counted: short ones are bounded by how many connections there are.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings

from airi_server.kernel.errors import DomainError, TooManyRequests, Unavailable


class HeldBytes:
    """Bytes of bodies in this process's memory, from the first one until the request has ended.

    Attributes:
        buffered: Arrived, and not asked for by the application yet.
        taken: Arrived, and handed to the application.
        by_owner: What is taken or announced, by key or, for callers without one, by user.

    What is only announced fills its owner's budget, so that of sixteen uploads the later ones are
    refused at once. It does not fill the process's: to announce much and send nothing would shut
    everybody out.
    """

    __slots__ = ("buffered", "by_owner", "taken")

    def __init__(self) -> None:
        self.buffered = 0
        self.taken = 0
        self.by_owner: dict[str, int] = {}

    def is_full(self) -> bool:
        return self.buffered + self.taken > settings.MAX_BODIES_BYTES

    def claim(self, owner: str, size: int) -> None:
        """Count `size` more bytes of a body of `owner`'s, whether they have arrived or not.

        Raises:
            TooManyRequests: The owner's other bodies leave no room for it.
        """
        mine = self.by_owner.get(owner, 0) + size
        # One body is never too much by itself.
        if mine > max(settings.MAX_KEY_BODIES_BYTES, settings.MAX_GATEWAY_BODY_BYTES):
            raise TooManyRequests(
                "Too many large requests of this key are under way.", retry_after_s=1
            )
        self.by_owner[owner] = mine

    def take(self, size: int) -> None:
        """Count `size` more bytes that have arrived.

        Raises:
            Unavailable: Everybody's bodies together leave no room for them.
        """
        if self.buffered + self.taken + size > settings.MAX_BODIES_BYTES:
            raise no_room()
        self.taken += size

    def release(self, owner: str, *, claimed: int, taken: int) -> None:
        """Count that much of the owner's no more."""
        self.taken -= taken
        left = self.by_owner[owner] - claimed
        if left:
            self.by_owner[owner] = left
        else:
            del self.by_owner[owner]


HELD: Final = HeldBytes()


def no_room() -> DomainError:
    """Return what is told to those whose body this process cannot hold right now."""
    return Unavailable("Too many large requests are under way.", retry_after_s=1)
