"""Two or more things measured in turn, in short runs: what the machine does meets them all alike.

Every other round goes backwards, so that whoever is second does not stay second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from tests.bench import cases, cpu
from tests.bench.books import Books, Totals
from tests.bench.cases import Case, Target
from tests.bench.goals import Change
from tests.bench.load import Outcome
from tests.bench.rig import Rig

PAID: Final = ("server", "postgres")
"""The kinds of process that a request of ours is paid with."""
_WARM_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """One short run."""

    outcome: Outcome
    cpu_s: Mapping[str, float]
    others_s: float

    def cost(self, kinds: Sequence[str]) -> float:
        """Return the CPU seconds for 1,000 answers."""
        return 1000 * sum(self.cpu_s[kind] for kind in kinds) / max(1, self.outcome.complete)


@dataclass(slots=True)
class Side:
    """One of the things compared. `books` is where its answers are written; None: not ours.

    `beside` are processes of its own that are neither server nor storage, by kind.
    """

    name: str
    case: Case
    target: Target
    books: Books | None = None
    beside: Mapping[str, list[int]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    answers: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        seconds = sum(each.outcome.seconds for each in self.rounds)
        return sum(each.outcome.complete for each in self.rounds) / max(seconds, 0.001)

    @property
    def cpu_s(self) -> dict[str, float]:
        """CPU seconds for 1,000 answers, over all rounds, by kind of process."""
        answers = max(1, sum(each.outcome.complete for each in self.rounds))
        kinds = self.rounds[0].cpu_s
        return {k: 1000 * sum(each.cpu_s[k] for each in self.rounds) / answers for k in kinds}

    @property
    def cores(self) -> dict[str, float]:
        seconds = max(sum(each.outcome.seconds for each in self.rounds), 0.001)
        return {k: sum(r.cpu_s[k] for r in self.rounds) / seconds for k in self.rounds[0].cpu_s}

    @property
    def others(self) -> float:
        """How many cores everybody else on the machine had meanwhile."""
        seconds = max(sum(each.outcome.seconds for each in self.rounds), 0.001)
        return sum(each.others_s for each in self.rounds) / seconds

    def costs(self, *kinds: str) -> list[float]:
        return [each.cost(kinds) for each in self.rounds]

    def rates(self) -> list[float]:
        return [each.outcome.rate for each in self.rounds]

    def fire(self, seconds: float) -> Outcome:
        outcome = cases.fire(self.case, self.target, seconds)
        self.answers += outcome.complete
        self.faults += cases.unanswered(outcome)
        return outcome

    def __str__(self) -> str:
        p50 = median(each.outcome.p50 for each in self.rounds)
        costs = ", ".join(f"{kind} {cost:.3f}" for kind, cost in self.cpu_s.items())
        cores = ", ".join(f"{kind} {share:.2f}" for kind, share in self.cores.items())
        return (
            f"{self.name}: {self.rate:.0f} {self.case.unit}, p50 {p50:.1f} ms | "
            f"CPU s/1k: {costs} | cores: {cores}, others {self.others:.2f}"
        )


def alternate(rig: Rig, sides: Sequence[Side], *, seconds: float, rounds: int) -> list[str]:
    """Run the sides in turn, and hold what was answered against what was written.

    Returns:
        What must not be; the rounds are with the sides.
    """
    before = {side.books: side.books.totals() for side in sides if side.books}
    for side in sides:
        side.fire(_WARM_S)
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.rounds.append(_round(rig, side, seconds))
    for side in sides:
        print(side, flush=True)
    return [fault for side in sides for fault in side.faults] + _audit(sides, before)


def change(base: Side, other: Side, *kinds: str) -> Change:
    """Return what an answer of `other` costs in terms of one of `base`."""
    return Change.between(base.costs(*kinds), other.costs(*kinds))


def _round(rig: Rig, side: Side, seconds: float) -> Round:
    kinds = {**rig.kinds, "server": list(side.target.pids), **side.beside}
    used, machine = cpu.used(kinds), cpu.machine_used()
    outcome = side.fire(seconds)
    spent = {kind: after - used[kind] for kind, after in cpu.used(kinds).items()}
    spent["load"] = outcome.cpu_s
    others = cpu.machine_used() - machine - sum(spent.values())
    return Round(outcome, spent, max(0.0, others))


def _audit(sides: Sequence[Side], before: Mapping[Books, Totals]) -> list[str]:
    faults = []
    for books, totals in before.items():
        paid = sum(side.answers for side in sides if side.books is books)
        faults += cases.mismatches(paid, books.totals() - totals) + books.faults()
    return faults
