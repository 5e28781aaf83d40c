"""The mutants of each file, remembered: libcst takes minutes to write all of them down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.mutants import python, sql
from tests.mutants.mutant import Mutant
from tests.mutants.verdicts import digest


def mutants_of(root: Path, path: str, cache: Path) -> list[Mutant]:
    """Return every mutant of a file of the scope, in the order of its lines."""
    text = (root / path).read_text(encoding="utf-8")
    if path.endswith(".sql"):
        return sql.mutants_of(path, text)
    key = digest([text, Path(python.__file__).read_text(encoding="utf-8")])
    kept = cache / f"{path.replace('/', '.')}.{key}.json"
    if kept.exists():
        return [_read(path, text, row) for row in json.loads(kept.read_text(encoding="utf-8"))]
    found = python.mutants_of(path, text)
    cache.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([_row(text, one) for one in found]), encoding="utf-8")
    return found


def _row(text: str, one: Mutant) -> dict[str, Any]:
    """Return a mutant as its facts and what it replaces: where from, where to, with what."""
    start = _shared(text, one.text)
    end = _shared(text[:start:-1], one.text[:start:-1])
    return {
        "where": one.where, "was": one.was, "becomes": one.becomes, "lines": one.lines,
        "nth": one.nth, "change": [start, len(text) - end, one.text[start : len(one.text) - end]],
    }  # fmt: skip


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _read(path: str, text: str, row: dict[str, Any]) -> Mutant:
    start, end, replacement = row["change"]
    first, last = row["lines"]
    return Mutant(
        path, row["where"], row["was"], row["becomes"], (first, last),
        text[:start] + replacement + text[end:], row["nth"],
    )  # fmt: skip
