"""Where mutants are tried: a copy of the tree, a database, and the process that forks."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from airi_server.launch import processes
from airi_server.launch import tests as launcher
from airi_server.launch.stack import Stack
from tests.mutants import scope, sql, typecheck
from tests.mutants.books import Books
from tests.mutants.mutant import Mutant
from tests.mutants.reach import Reach
from tests.mutants.verdicts import SURVIVED

CACHE: Final = processes.ROOT / ".data" / "mutants"
RECORD_S: Final = 900.0
_PARTS: Final = (
    "airi_server", "accounts", "billing", "llmrouter", "chats", "templates", "tests", "docs",
    "manage.py", "pyproject.toml",
)  # fmt: skip


class Stage:
    """Tries mutants one after the other; nothing outside of its copy is changed."""

    def __init__(self, tree: Path, books: Books, nursery: subprocess.Popen[str]) -> None:
        self.tree = tree
        self._books = books
        self._nursery = nursery
        self._trials = 0

    def reach_of(self, test_file: str) -> dict[str, Any]:
        """Run a file of tests on the healthy code and return what each of them reaches."""
        self._books.renew()
        order = {"kind": "reach", "tests": [test_file], "timeout_s": RECORD_S}
        return self._ask(order)

    def attempt(self, mutant: Mutant, reach: Reach) -> dict[str, Any]:
        """Return `outcome`, `by` and `seconds` of one mutant."""
        answer = self._attempt(mutant, reach)
        is_python = mutant.path.endswith(".py")
        if answer["outcome"] not in SURVIVED or not is_python:
            return answer
        if not typecheck.refuses(mutant, self.tree):
            return answer
        return {**answer, "outcome": "killed", "by": typecheck.NAME}

    def _attempt(self, mutant: Mutant, reach: Reach) -> dict[str, Any]:
        tests = reach.of(mutant)
        if not tests:
            return {"outcome": "out of reach"}
        limits = {each: 15 + 3 * reach.seconds[each] for each in tests}
        order = {
            "kind": "trial", "path": mutant.path, "tests": tests, "limits": limits,
            "timeout_s": 60 + sum(limits.values()),
        }  # fmt: skip
        self._books.forget()
        if mutant.path.endswith(".sql"):
            answer = self._attempt_sql(mutant, order)
        else:
            answer = self._ask({**order, "python": mutant.text})
        if answer["outcome"] in ("timeout", "crashed") or not answer.get("clean", True):
            self._books.renew()
        return answer

    def _attempt_sql(self, mutant: Mutant, order: dict[str, Any]) -> dict[str, Any]:
        file = self.tree / mutant.path
        healthy = file.read_text(encoding="utf-8")
        if not sql.is_function(healthy):
            return self._ask({**order, "text": mutant.text, "healthy": healthy})
        if not self._books.install(mutant.text):
            return {"outcome": "stillborn"}
        file.write_text(mutant.text, encoding="utf-8")
        try:
            return self._ask(order)
        finally:
            file.write_text(healthy, encoding="utf-8")
            if not self._books.install(healthy):
                self._books.renew()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        asking, answering = self._nursery.stdin, self._nursery.stdout
        if asking is None or answering is None:
            raise RuntimeError("The nursery has no pipes.")
        print(json.dumps(order), file=asking, flush=True)
        line = answering.readline()
        if not line:
            raise RuntimeError(f"The nursery ended; {CACHE / 'nursery.log'} says why.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def stage(test_files: Iterable[str]) -> Iterator[Stage]:
    """Bring up what trials need, and end it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tree = _copy(CACHE / "tree")
    with Stack(CACHE / "servers", durable=False) as servers:
        books = Books(servers.database_url, servers.redis_url)
        launcher._apply(books.url, books.redis_url)
        books.prepare(tree)
        with (CACHE / "nursery.log").open("w", encoding="utf-8") as log:
            nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.mutants.nursery", *test_files],
                cwd=tree,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            with nursery:
                if nursery.stdout is None or "true" not in nursery.stdout.readline():
                    raise RuntimeError(f"The nursery did not start; {log.name} says why.")
                yield Stage(tree, books, nursery)


def _copy(tree: Path) -> Path:
    """Copy what the tests of the scope need; compiled files with it, they stay valid."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for name in _PARTS:
        source = processes.ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name)
        else:
            shutil.copy2(source, tree / name)
    return tree


def mutable(paths: list[str]) -> list[str]:
    """Return the files to break; see `scope.chosen`."""
    return scope.chosen(paths, processes.ROOT)
