"""Every way to break a file of SQL: by its text, which PostgreSQL then has to take.

A change that PostgreSQL refuses to install as a function is not counted. What it refuses only when
the statement runs is: that is how a test would notice it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final

from tests.mutants.mutant import Mutant, difference

Change = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def _to(replacement: str) -> Callable[[re.Match[str]], str]:
    return lambda _match: replacement


def _one_more(match: re.Match[str]) -> str:
    return str(int(match[0]) + 1)


_WORDS: Final = {
    r"AND": "OR", r"(?<!CREATE )OR": "AND", r"greatest": "least", r"least": "greatest",
    r"IS NOT NULL": "IS NULL", r"IS NULL": "IS NOT NULL", r"true": "false", r"false": "true",
    r"IS DISTINCT FROM": "IS NOT DISTINCT FROM", r"IS NOT DISTINCT FROM": "IS DISTINCT FROM",
    r"WHERE": "WHERE true OR", r"LEFT JOIN": "JOIN", r"FOR NO KEY UPDATE": "", r"FOR UPDATE": "",
    r"SKIP LOCKED": "", r"DISTINCT (?!FROM)": "", r"UNION ALL": "UNION", r"min": "max",
    r"max": "min", r"sum": "max", r"DESC": "ASC", r"NOT EXISTS": "EXISTS",
    r"(?<!NOT )EXISTS": "NOT EXISTS", r"NOT IN": "IN", r"(?<!NOT )IN(?= \()": "NOT IN",
}  # fmt: skip
_SIGNS: Final = {
    r"<=": "<", r">=": ">", r"<>": "=", r"(?<![<>-])<(?![=>])": "<=",
    r"(?<![<>=-])>(?![=>])": ">=", r"(?<![<>:!|=])=(?![>=])": "<>", r"(?<= )\+(?= )": "-",
    r"(?<= )-(?= )": "+", r"(?<= )\*(?= )": "/", r"(?<= )/(?= )": "*",
}  # fmt: skip
CHANGES: Final[tuple[Change, ...]] = (
    *((re.compile(rf"\b{word}(?![A-Za-z_])"), _to(other)) for word, other in _WORDS.items()),
    *((re.compile(sign), _to(other)) for sign, other in _SIGNS.items()),
    (re.compile(r"(?<![\w'$.])\d+(?![\w'.])"), _one_more),
    (re.compile(r"\b(IF|ELSIF) (?!NOT EXISTS)(.+?) THEN"), lambda m: f"{m[1]} NOT ({m[2]}) THEN"),
    # An assignment that does not happen, a condition that is not asked.
    (re.compile(r"^ +\w+(?:\[[^]]+\])? := [^;]*;(?=\n)", re.MULTILINE), _to("")),
    (re.compile(r"^ +AND [^()\n]*(?:\([^()\n]*\)[^()\n]*)*(?=\n)", re.MULTILINE), _to("")),
    (re.compile(r"'[a-z_]+'"), lambda m: f"'XX{m[0][1:-1]}XX'"),
)


def mutants_of(path: str, text: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of its lines."""
    name = PurePosixPath(path).stem
    found = sorted(_changes(text), key=lambda change: change[:2])
    seen: Counter[tuple[str, str, str, str]] = Counter()
    mutants = []
    for start, end, replacement in found:
        after = text[:start] + replacement + text[end:]
        was, becomes = difference(text, after)
        if was == becomes:
            continue
        lines = text.count("\n", 0, start) + 1, text.count("\n", 0, end) + 1
        key = (path, name, was, becomes)
        mutants.append(Mutant(*key, lines=lines, text=after, nth=seen[key]))
        seen[key] += 1
    return mutants


def is_function(text: str) -> bool:
    """Tell a function that is installed from a statement that is sent."""
    return "CREATE OR REPLACE FUNCTION" in text


def _changes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and replacement of every change of what is not a comment."""
    comments = [match.span() for match in re.finditer(r"--[^\n]*", text)]
    body = text.index("AS $$") if is_function(text) else 0
    for pattern, replacement in CHANGES:
        for match in pattern.finditer(text, body):
            if not any(start <= match.start() < end for start, end in comments):
                yield match.start(), match.end(), replacement(match)
