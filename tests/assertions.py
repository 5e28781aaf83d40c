"""`python -m tests.assertions`: list the test functions that can only fail by an exception.

A test asserts if it has an `assert`, `pytest.raises` and their like, or calls or passes on a
function of the tests that does, however far away: of its own module, else one it imports, else any
of that name, if all of them assert. Fixtures and factories arrange, and do not count. What is left
wants an assertion, or stands in `REASONS`.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
_ASSERTS: Final = frozenset(
    {"raises", "warns", "fail", "expect", "django_assert_num_queries",
     "django_assert_max_num_queries"}
)  # fmt: skip
_DEFINES: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
REASONS: Final = {
    "accounts/test_keys.py::test_lets_sessions_and_plain_keys_pass": "a refusal raises",
    "chats/test_envelopes.py::test_never_crashes": "anything but Malformed is a crash",
    "test_project.py::test_every_model_change_has_a_migration": "makemigrations --check exits",
}
"""By file and name: why a test without an assertion is one."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as far as it matters here. `names` are those it calls or passes on."""

    file: str
    name: str
    asserts: bool
    names: frozenset[tuple[str, str]]
    """The module that is thought to have it, "" for any, and the name in it."""


class Module:
    """A file of the tests: its functions, with the names in them led to where they are from."""

    def __init__(self, path: Path) -> None:
        self.file = path.relative_to(TESTS).as_posix()
        tree = ast.parse(path.read_text())
        found = [*ast.walk(tree)]
        self._own = {each.name for each in found if isinstance(each, _DEFINES)}
        self._imported: dict[str, tuple[str, str]] = {}
        for each in found:
            if isinstance(each, ast.Import | ast.ImportFrom):
                self._note(each)
        self.functions = [self._read(each) for each in found if isinstance(each, _DEFINES)]

    def _note(self, node: ast.Import | ast.ImportFrom) -> None:
        module = node.module if isinstance(node, ast.ImportFrom) else None
        place = TESTS.parent / (module or "").replace(".", "/")
        for alias in node.names:
            if not (module or "").startswith("tests"):
                self._imported[alias.asname or alias.name] = ("not of the tests", alias.name)
                continue
            inner = (place / f"{alias.name}.py").is_file()
            path = Path(f"{place}/{alias.name}.py" if inner else f"{place}.py")
            file = path.as_posix().removeprefix(f"{TESTS.as_posix()}/")
            self._imported[alias.asname or alias.name] = (file, "" if inner else alias.name)

    def _read(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
        within = [*ast.walk(node)]
        asserts = not self.file.startswith("factories/") and any(
            isinstance(each, ast.Assert) or _is_failure(each) for each in within
        )
        names = {self._led(each) for each in within if isinstance(each, ast.Name | ast.Attribute)}
        is_asserting = asserts or any(name in _ASSERTS for _, name in names)
        return Function(self.file, node.name, is_asserting, frozenset(names))

    def _led(self, node: ast.Name | ast.Attribute) -> tuple[str, str]:
        if isinstance(node, ast.Name):
            return ("", node.id) if self._is_strange(node.id) else self._known(node.id)
        if isinstance(node.value, ast.Name) and node.value.id in self._imported:
            return self._imported[node.value.id][0], node.attr
        return self._known(node.attr) if node.attr in self._own else ("", node.attr)

    def _is_strange(self, name: str) -> bool:
        return name not in self._own and name not in self._imported

    def _known(self, name: str) -> tuple[str, str]:
        return (self.file, name) if name in self._own else self._imported[name]


def _is_failure(node: ast.AST) -> bool:
    raised = node.exc if isinstance(node, ast.Raise) else None
    return isinstance(raised, ast.Call) and _name(raised.func) == "AssertionError"


def _name(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else ""


def silent() -> set[str]:
    """Return the places of the test functions that assert nothing."""
    everything = [each for path in TESTS.rglob("*.py") for each in Module(path).functions]
    asserting: set[tuple[str, str]] = set()
    while True:
        found = _asserting(everything, asserting)
        if found == asserting:
            break
        asserting = found
    return {
        f"{each.file}::{each.name}"
        for each in everything
        if each.name.startswith("test_") and not _does(each, asserting)
    }


def _asserting(everything: list[Function], known: set[tuple[str, str]]) -> set[tuple[str, str]]:
    votes: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for each in everything:
        for key in ((each.file, each.name), ("", each.name)):
            votes[key].append(_does(each, known))
    return {key for key, cast in votes.items() if all(cast)}


def _does(function: Function, known: set[tuple[str, str]]) -> bool:
    return function.asserts or bool(function.names & known)


def main() -> None:
    found = silent()
    for place in sorted(found - REASONS.keys()):
        print(f"tests/{place} asserts nothing")
    for place in sorted(REASONS.keys() - found):
        print(f"tests/{place} needs no reason any more")
    sys.exit(bool(found ^ REASONS.keys()))


if __name__ == "__main__":
    main()
