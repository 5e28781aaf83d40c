"""What became of each mutant, kept as it is found: a run that was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant

NOTICED: Final = frozenset({"killed", "timeout", "crashed"})
SURVIVED: Final = frozenset({"survived", "out of reach", "accepted"})
STILLBORN: Final = "stillborn"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one mutant ended. `by` is the test that noticed, `code` and `asked` what it is true of.

    `outcome` is killed, timeout or crashed; survived, out of reach (no test gets there) or
    accepted; or stillborn, which is not counted.
    """

    id: str
    outcome: str
    code: str
    asked: str
    by: str = ""
    seconds: float = 0.0

    @property
    def is_noticed(self) -> bool:
        return self.outcome in NOTICED


class Verdicts:
    """A file of them, appended to; the newest of a mutant counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: dict[str, Verdict] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                verdict = Verdict(**json.loads(line))
                self._kept[verdict.id] = verdict

    def of(self, mutant: Mutant, code: str, asked: str) -> Verdict | None:
        """Return what still holds: a survivor's verdict ends with the tests that were asked."""
        found = self._kept.get(mutant.id)
        if found is None or found.code != code:
            return None
        return found if found.is_noticed or found.asked == asked else None

    def add(self, verdict: Verdict) -> None:
        self._kept[verdict.id] = verdict
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
