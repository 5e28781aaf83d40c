"""Which tests reach which line, and how long each takes: found once a version."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.mutants import scope
from tests.mutants.mutant import Mutant

BUDGET_S: Final = 60.0
"""So long the tests may take that are asked about one line."""
_CODE: Final = ("airi_server/kernel", "airi_server/runtime", "accounts", "billing", "llmrouter")
_SHARED: Final = ("tests/conftest.py", "tests/factories", "tests/fakes")
Run = Callable[[str], dict[str, Any]]


@dataclass(slots=True)
class Reach:
    """`tests` of each line of each file; `seconds` of each test; those that `failed` at once."""

    tests: dict[str, dict[int, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    budget_s: float = BUDGET_S

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests to ask about a mutant, the quickest first, within the budget."""
        if mutant.path.endswith(".sql"):
            files = scope.SQL[mutant.path]
            found = {each for each in self.seconds if each.partition("::")[0] in files}
        else:
            first, last = mutant.lines
            lines = self.tests.get(mutant.path, {})
            found = set().union(*(lines.get(line, set()) for line in range(first, last + 1)))
        chosen: list[str] = []
        spent = 0.0
        near = {each for each in found if each.partition("::")[0] in self._near(mutant.path)}
        everything = [*self._in_turn(near), *self._in_turn(found - near)]
        for test in everything:
            if spent + self.seconds[test] <= self.budget_s:
                spent += self.seconds[test]
                chosen.append(test)
        return chosen

    def _near(self, path: str) -> set[str]:
        """Return the files of tests that import what is broken: what they say of it counts most."""
        *package, module = path.removesuffix(".py").split("/")
        inside = ".".join(package)
        named = re.compile(rf"(?:from {inside} import .*\b{module}\b|{inside}\.{module}\b)")
        return {file for file, text in self.sources.items() if named.search(text)}

    def _in_turn(self, tests: set[str]) -> list[str]:
        """Order tests: the quickest of each file, then the second of each, and so on.

        Alone by time, a hundred that parse bodies would come before the first that looks at a row.
        """
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in sorted(tests, key=lambda each: (self.seconds[each], each)):
            if test not in self.failed and not any(name in test for name in scope.LEFT_OUT):
                by_file[test.partition("::")[0]].append(test)
        rounds = itertools.zip_longest(*(by_file[file] for file in sorted(by_file)))
        return [
            test
            for one_round in rounds
            for test in sorted((each for each in one_round if each), key=self.seconds.__getitem__)
        ]

    def add(self, found: dict[str, Any]) -> None:
        self.seconds |= found["seconds_of"]
        self.failed |= found["failed"]
        for path, lines in found["lines"].items():
            for line, tests in lines.items():
                self.tests[path][int(line)].update(tests)


def found_in(root: Path, cache: Path, files: Iterable[str], run: Run) -> Reach:
    """Ask each test file what it reaches, or remember what it said of this very code."""
    reach = Reach()
    code = _digest(root, _CODE)
    shared = _digest(root, _SHARED)
    cache.mkdir(parents=True, exist_ok=True)
    for file in files:
        own = (root / file).read_bytes()
        key = hashlib.sha256(b"\0".join((code, shared, own))).hexdigest()
        kept = cache / f"{file.replace('/', '.')}.json"
        said = json.loads(kept.read_text()) if kept.exists() else {}
        if said.get("key") != key:
            said = {"key": key, **run(file)}
            if said["outcome"] == "ran":
                kept.write_text(json.dumps(said))
        reach.add(said)
        reach.sources[file] = own.decode()
    return reach


def _digest(root: Path, places: Iterable[str]) -> bytes:
    total = hashlib.sha256()
    for place in places:
        here = root / place
        for path in sorted(here.rglob("*")) if here.is_dir() else [here]:
            if path.suffix == ".py":
                total.update(path.read_bytes())
    return total.digest()
