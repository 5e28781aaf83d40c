"""What goes wrong and when, decided by a seed alone. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

INSTANCES: Final = 2
_EVERY_S: Final = (1.5, 3.5)
_QUIET_S: Final = 2.0
"""Before the first fault, and after the last one."""


class Kind(StrEnum):
    """What can go wrong."""

    SOCKETS_CUT = "sockets cut"
    REDIS_KILLED = "Redis killed"
    DATABASE_RESTARTED = "PostgreSQL restarted"
    DATABASE_CRASHED = "PostgreSQL crashed"
    INSTANCE_STOPPED = "instance stopped"
    INSTANCE_KILLED = "instance killed"
    INSTANCE_PAUSED = "instance paused"
    DATABASE_KILLED = "PostgreSQL killed"
    ROUTES_MOVED = "routes moved"
    PERSON_BANNED = "person banned"
    KEY_DISABLED = "key disabled"


OF_MACHINES: Final = (
    Kind.SOCKETS_CUT,
    Kind.REDIS_KILLED,
    Kind.DATABASE_RESTARTED,
    Kind.DATABASE_CRASHED,
    Kind.INSTANCE_STOPPED,
    Kind.INSTANCE_KILLED,
    Kind.INSTANCE_PAUSED,
)
"""What any run can do; the others need somebody who is paid for it."""

_LASTS_S: Final = {
    Kind.SOCKETS_CUT: (0.0, 0.0),
    Kind.REDIS_KILLED: (0.2, 3.0),
    Kind.DATABASE_RESTARTED: (0.0, 1.5),
    Kind.DATABASE_CRASHED: (0.0, 1.5),
    Kind.INSTANCE_STOPPED: (0.2, 2.0),
    Kind.INSTANCE_KILLED: (0.2, 2.0),
    Kind.INSTANCE_PAUSED: (0.5, 4.0),
    Kind.DATABASE_KILLED: (0.0, 1.5),
    Kind.ROUTES_MOVED: (0.0, 0.0),
    Kind.PERSON_BANNED: (9.0, 11.0),
    Kind.KEY_DISABLED: (9.0, 11.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        at_s: Seconds after the start.
        lasts_s: How long until it is mended; starting again takes what it takes.
        instance: The one it happens to, where it is one.
        share: Of the connections, for those that are cut.
    """

    at_s: float
    kind: Kind
    lasts_s: float
    instance: int
    share: float


def schedule(seed: int, seconds: float, kinds: Sequence[Kind] = OF_MACHINES) -> list[Fault]:
    """Return faults in their order: everything in `kinds` once before any of it comes again."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    deck: list[Kind] = []
    at = _QUIET_S
    while at < seconds - _QUIET_S:
        if not deck:
            deck = rng.sample(kinds, len(kinds))
        kind = deck.pop()
        faults.append(
            Fault(
                at_s=round(at, 2),
                kind=kind,
                lasts_s=round(rng.uniform(*_LASTS_S[kind]), 2),
                instance=rng.randrange(INSTANCES),
                share=round(rng.uniform(0.2, 1.0), 2),
            )
        )
        at += rng.uniform(*_EVERY_S)
    return faults
