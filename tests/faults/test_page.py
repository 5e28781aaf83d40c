"""docs/faults.md names a test for each fault: each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.lab.server import ROOT

PAGE = ROOT / "docs" / "faults.md"
NAMED = re.compile(r"`([\w/]+\.py)::([\w:]+)`")


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of a file's tests as pytest says them."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        names.add(getattr(node, "name", ""))
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{getattr(each, 'name', '')}" for each in node.body}
    return frozenset(names)


def test_every_test_it_names_is_there():
    named = NAMED.findall(PAGE.read_text())
    missing = [
        f"{file}::{test}" for file, test in named if test not in names_in(ROOT / "tests" / file)
    ]

    assert len(named) > 80
    assert missing == []


def test_every_test_here_is_named_on_it():
    page = PAGE.read_text()
    here = {
        f"faults/{path.name}::{name}"
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        if path != Path(__file__)
        for name in names_in(path)
        if name.split("::")[-1].startswith("test_")
    }

    assert {name for name in here if f"`{name}`" not in page} == set()
