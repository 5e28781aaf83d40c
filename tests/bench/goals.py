"""What was wanted, what came, and whether that is enough; and the arithmetic of comparing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the final table. `holds` is None where this machine cannot tell."""

    wanted: str
    came: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        if self.holds is None:
            return "not judged"
        return "held" if self.holds else "MISSED"


@dataclass(slots=True)
class Findings:
    """What a part found: its goals, and everything that must never be, by name."""

    goals: list[Goal] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, said: dict[str, Any]) -> Findings:
        return cls([Goal(**goal) for goal in said["goals"]], said["faults"])


def table(goals: Sequence[Goal]) -> str:
    """Return the goals as a Markdown table."""
    lines = ["| goal | measured | held |", "|---|---|---|"]
    lines += [f"| {goal.wanted} | {goal.came} | {goal.verdict} |" for goal in goals]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Change:
    """How much one thing is of another, over pairs that were measured side by side."""

    middle: float
    least: float
    most: float

    @classmethod
    def between(cls, base: Sequence[float], other: Sequence[float]) -> Change:
        """Return `other` in terms of `base`, pair by pair: the median stands for all.

        What disturbs one pair, as a neighbor on the machine does, moves its ends and not the
        middle.

        Raises:
            ValueError: A pair has no partner, or there is none at all.
        """
        ratios = [its / ours for ours, its in zip(base, other, strict=True) if ours > 0]
        if not ratios:
            raise ValueError("Nothing to compare.")
        return cls(median(ratios), min(ratios), max(ratios))

    @property
    def percent(self) -> float:
        return 100 * (self.middle - 1)

    def __str__(self) -> str:
        return f"{self.middle:.2f} times ({self.least:.2f} to {self.most:.2f})"

    def as_percent(self) -> str:
        ends = f"{100 * (self.least - 1):+.1f} to {100 * (self.most - 1):+.1f}"
        return f"{self.percent:+.1f} % ({ends})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are below; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
