"""One way to break one file, and the name it keeps when lines around it move."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: The file, from the root of the project.
        where: The function around the change, as `Class.method`; of SQL, the file's name.
        was: The changed lines as they stand there, each stripped, with a space between.
        becomes: What they turn into; empty when they go.
        lines: First and last line of the statement it is in, counted from 1.
        text: The whole file with the change.
        nth: Which of those that read the same, counted from 0.
    """

    path: str
    where: str
    was: str
    becomes: str
    lines: tuple[int, int]
    text: str
    nth: int = 0

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What a reader calls it: two that read the same share it."""
        return (self.path, self.where, self.was, self.becomes)

    @property
    def id(self) -> str:
        facts = "\0".join((*self.name, str(self.nth)))
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.path}:{self.lines[0]} {self.where}\n  - {self.was}\n  + {self.becomes}"


def difference(before: str, after: str) -> tuple[str, str]:
    """Return the lines in which two texts differ, in one line each: how it was, what it becomes."""
    old, new = before.splitlines(), after.splitlines()
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return _joined(old[start : len(old) - end]), _joined(new[start : len(new) - end])


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
