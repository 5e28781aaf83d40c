"""Survivors that are meant to: the list in docs/mutants.md, read as the tool reads it.

Under a heading with a file's path, a line for each: the function, how the line reads, what it
becomes, and why nothing need notice.

    - `Order.fit`: `return max(1, tokens)` → `return max(0, tokens)`. Why.

`…` stands for any rest of a line, and as the function for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant

PAGE: Final = "docs/mutants.md"
ANY: Final = "…"
_HEADING: Final = re.compile(r"^#+ `?([\w/.-]+\.(?:py|sql))`?$")
_ENTRY: Final = re.compile(r"^- `([^`]+)`: `([^`]+)` → `([^`]*)`\. (\S.*)$")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One line of the page."""

    path: str
    where: str
    was: str
    becomes: str
    why: str

    def covers(self, mutant: Mutant) -> bool:
        if self.path != mutant.path or self.where not in (ANY, mutant.where):
            return False
        return _fits(self.was, mutant.was) and _fits(self.becomes, mutant.becomes or "nothing")


def read(page: Path) -> list[Accepted]:
    """Return what the page accepts.

    Raises:
        ValueError: A line of a list under a file's heading does not read as an entry.
    """
    found, path = [], ""
    for line in _unwrapped(page.read_text(encoding="utf-8") if page.exists() else ""):
        if line.startswith("#"):
            heading = _HEADING.match(line)
            path = heading[1] if heading else ""
        elif path and line.startswith("- "):
            entry = _ENTRY.match(line)
            if entry is None:
                raise ValueError(f"{page.name}: not an entry: {line}")
            found.append(Accepted(path, *entry.groups()))
    return found


def unknown(accepted: Iterable[Accepted], mutants: Iterable[Mutant]) -> list[Accepted]:
    """Return the lines that fit no mutant any more: what they were about has changed."""
    everything = list(mutants)
    return [each for each in accepted if not any(each.covers(one) for one in everything)]


def _unwrapped(text: str) -> list[str]:
    """Return the lines of a page with the indented ones joined to the one they continue."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("  ") and lines and lines[-1].startswith("- "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return lines


def _fits(pattern: str, text: str) -> bool:
    parts = [re.escape(part) for part in " ".join(pattern.split()).split(ANY)]
    return re.fullmatch(".*".join(parts), text) is not None
