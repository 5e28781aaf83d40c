"""What may be missing, and only then: each case stands in `docs/faults.md`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tests.chaos.faults import Kind
from tests.chaos.paid.record import Call, Happened, Record, Told
from tests.chaos.paid.witness import Row

CRASHES: Final = (Kind.DATABASE_CRASHED, Kind.DATABASE_KILLED)
AWAY: Final = (*CRASHES, Kind.DATABASE_RESTARTED)
_UNFLUSHED_S: Final = 3.0
"""A hold is on disk 0.6 s after its commit, later on a busy machine; opening it may wait too."""
_OUTLIVED_S: Final = 60.0
_LONGEST_S: Final = 45.0
"""From a hold to the end of its settlement: 8 s for an answer, less for a stream, then 30 s."""
_CONVERGED_S: Final = 8.0
"""A look at the versions comes every 5 s, and again after 1 s if the database is away."""


class Excuses:
    """Looks up in what happened whether it explains something."""

    def __init__(self, record: Record, rows: Iterable[Row]) -> None:
        self._happened = record.happened
        self._shut = record.shut
        self._last_opened: dict[str, float] = {}
        for row in rows:
            latest = max(row.opened, self._last_opened.get(row.instance_id, 0.0))
            self._last_opened[row.instance_id] = latest

    def orphaned(self, row: Row) -> bool:
        """Its instance was killed, or stopped while the database was away too long to settle.

        It then costs what its last checkpoint says, or nothing before its first.
        """
        if any(self._may_have_ended(row, kill) for kill in self._of(Kind.INSTANCE_KILLED)):
            return True
        return any(
            away.began <= stop.ended and stop.began <= away.ended
            for stop in self._of(Kind.INSTANCE_STOPPED)
            if self._may_have_ended(row, stop)
            for away in self._of(*AWAY)
        )

    def _may_have_ended(self, row: Row, end: Happened) -> bool:
        """Whether it came while the request ran, and its instance has opened nothing since."""
        was_running = end.began - _LONGEST_S < row.opened < end.ended
        return was_running and self._last_opened[row.instance_id] < end.ended

    def forgotten(self, told: Told) -> bool:
        """Its hold had not reached the disk when the database crashed, and then its instance ended.

        As long as the instance lives it writes the row again.
        """
        return any(
            crash.began <= end.ended and end.began <= crash.ended + _OUTLIVED_S
            for crash in self.crashes_around([told])
            for end in self._of(Kind.INSTANCE_KILLED, Kind.INSTANCE_STOPPED)
        )

    def forgotten_key(self, call: Call) -> bool:
        """The database forgot a hold, so a repeat of its key opened another request."""
        return bool(self.crashes_around(call.told))

    def crashes_around(self, told: Iterable[Told]) -> list[Happened]:
        return [
            crash
            for each in told
            for crash in self._of(*CRASHES)
            if each.began <= crash.ended and crash.began <= each.began + _UNFLUSHED_S
        ]

    def refused(self, user_id: str, told: Told) -> bool:
        """They were shut out, or may not have been let in again yet."""
        return any(
            told.began <= shut.ended + _CONVERGED_S and shut.began <= told.ended
            for shut in self._shut
            if shut.user_id == user_id
        )

    def should_be_refused(self, user_id: str, told: Told) -> bool:
        """They were shut out for so long that everybody knows."""
        return any(
            shut.sure + _CONVERGED_S < told.began and told.ended < shut.lifting
            for shut in self._shut
            if shut.user_id == user_id and shut.sure
        )

    def _of(self, *kinds: Kind) -> Sequence[Happened]:
        return [each for each in self._happened if each.kind in kinds]
